use crate::prelude::{Prelude, Width};
use crate::strided::Strided;
use graph::Expr;
use graph::expr::{Binary, Unary};
use std::fmt::Write;

/// Accurate versions of functions that WGSL lacks or whose precision it leaves open.
pub(crate) const FUNCTIONS: &str = include_str!("functions.wgsl");

/// Generates `fn name(i: u32) -> f32`, or `name4` for four positions from `i` on, which evaluates `expr` at position `i`
/// of a result of shape `out`.
///
/// `Input(k)` is loaded from binding `x{k}` of shape `shapes[k]`, broadcast. Where the shape is `None`, it is a
/// parameter `v{k}` of the function instead. With `width` four, bindings that [`Strided::is_contiguous`] have width
/// four, too.
pub(crate) fn function(
    prelude: &mut Prelude,
    name: &str,
    expr: &Expr,
    shapes: &[Option<&[usize]>],
    out: &[usize],
    width: Width,
) {
    let (suffix, kind) = match width {
        Width::One => ("", "f32"),
        Width::Four => ("4", "vec4<f32>"),
    };
    let mut parameters = String::new();
    let mut lets = String::new();
    for (k, shape) in shapes.iter().enumerate() {
        let Some(shape) = shape else {
            let _ = write!(parameters, "v{k}: {kind}, ");
            continue;
        };
        let strided = Strided::broadcast(shape, out);
        let index = strided.index(prelude, &format!("x{k}"));
        let load = match width {
            Width::One => format!("load_x{k}({index})"),
            Width::Four if strided.is_contiguous() => format!("load4_x{k}({index})"),
            Width::Four if strided.is_repeated() => format!("vec4<f32>(load_x{k}({index}))"),
            Width::Four => unreachable!("width four needs a last axis of whole vectors"),
        };
        let _ = writeln!(lets, "    let v{k} = {load};");
    }
    let mut writer = Writer { prelude, width, constants: 0, used: Vec::new() };
    let value = writer.wgsl(expr);
    let used = writer.used;
    if used.iter().any(|op| library(*op)) {
        prelude.function(FUNCTIONS);
    }
    if width == Width::Four {
        for op in used.iter().filter(|op| library(**op)) {
            let f = op.name();
            prelude.function(&format!(
                "fn {f}4(x: vec4<f32>) -> vec4<f32> {{\n    return vec4<f32>({f}_(x.x), {f}_(x.y), {f}_(x.z), {f}_(x.w));\n}}\n"
            ));
        }
    }
    prelude.function(&format!("fn {name}{suffix}({parameters}i: u32) -> {kind} {{\n{lets}    return {value};\n}}\n"));
}

/// Whether a function comes from [`FUNCTIONS`], where its name ends in an underscore.
fn library(op: Unary) -> bool {
    !matches!(op, Unary::Neg | Unary::Abs | Unary::Ln | Unary::Sqrt | Unary::Relu)
}

struct Writer<'a> {
    prelude: &'a mut Prelude,
    width: Width,
    constants: usize,
    used: Vec<Unary>,
}

impl Writer<'_> {
    fn wgsl(&mut self, expr: &Expr) -> String {
        match expr {
            Expr::Input(k) => format!("v{k}"),
            Expr::Const(value) => self.constant(*value),
            Expr::Unary(op, x) => {
                let x = self.wgsl(x);
                self.unary(*op, &x)
            }
            Expr::Binary(op, a, b) => {
                let (a, b) = (self.wgsl(a), self.wgsl(b));
                match op {
                    Binary::Add => format!("({a} + {b})"),
                    Binary::Sub => format!("({a} - {b})"),
                    Binary::Mul => format!("({a} * {b})"),
                    Binary::Div => format!("({a} / {b})"),
                    Binary::Min => format!("min({a}, {b})"),
                    Binary::Max => format!("max({a}, {b})"),
                }
            }
        }
    }

    fn constant(&mut self, value: f64) -> String {
        #[allow(clippy::cast_possible_truncation, reason = "kernels compute in f32")]
        let value = value as f32;
        let text = if value.is_finite() {
            format!("({value:?}f)")
        } else {
            // WGSL has no literals for infinities and NaN, and rejects constant expressions that produce them.
            let name = format!("constant{}", self.constants);
            self.constants += 1;
            self.prelude.param_f32(&name, value);
            format!("params.{name}")
        };
        self.splat(&text)
    }

    fn splat(&self, text: &str) -> String {
        match self.width {
            Width::One => text.into(),
            Width::Four => {
                format!("vec4<f32>{}", if text.starts_with('(') { text.into() } else { format!("({text})") })
            }
        }
    }

    fn unary(&mut self, op: Unary, x: &str) -> String {
        match op {
            Unary::Neg => format!("(-{x})"),
            Unary::Abs => format!("abs({x})"),
            Unary::Ln => format!("log({x})"),
            Unary::Sqrt => format!("sqrt({x})"),
            Unary::Relu => format!("max({x}, {})", self.splat("(0.0)")),
            _ => {
                if !self.used.contains(&op) {
                    self.used.push(op);
                }
                let suffix = if self.width == Width::Four { "4" } else { "_" };
                format!("{}{suffix}({x})", op.name())
            }
        }
    }
}
