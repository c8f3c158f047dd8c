use crate::expression;
use crate::kernel::Shader;
use crate::problem::{Format, Operand, Problem};
use crate::profile::Profile;
use crate::strided::Strided;
use std::fmt::Write;

/// Elements that one access to a binding moves: one, or an aligned four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    One,
    Four,
}

impl Width {
    /// Four when every row of this many elements starts at a multiple of four.
    pub(crate) fn of(row: usize) -> Self {
        if row.is_multiple_of(4) { Self::Four } else { Self::One }
    }
}

/// Collects the text before a kernel's body.
///
/// Bindings are numbered in the order of the calls: operands, then [`result`](Self::result), which adds the epilogue's
/// operands and the result itself. [`compose`](Self::compose) adds the uniform buffer.
#[derive(Debug, Default)]
pub(crate) struct Prelude {
    constants: String,
    declarations: String,
    functions: String,
    fields: String,
    words: Vec<u32>,
    table: Vec<u32>,
    bindings: u32,
    f16: bool,
    extensions: Vec<&'static str>,
    workgroup: [u32; 3],
    failed: bool,
}

impl Prelude {
    /// A prelude for workgroups of `WORKGROUP` invocations in a row.
    pub(crate) fn new(workgroup: u32) -> Self {
        let mut prelude = Self { workgroup: [workgroup, 1, 1], ..Self::default() };
        prelude.constant("WORKGROUP", workgroup);
        // Filled in by `compose`, when the number of workgroups is known.
        prelude.word("groups_x", "u32", 0);
        prelude
    }

    /// `const NAME: u32`
    pub(crate) fn constant(&mut self, name: &str, value: u32) {
        let _ = writeln!(self.constants, "const {name}: u32 = {value}u;");
    }

    /// `const NAME: bool`
    pub(crate) fn flag(&mut self, name: &str, value: bool) {
        let _ = writeln!(self.constants, "const {name}: bool = {value};");
    }

    /// `params.name`, a `u32`.
    pub(crate) fn param(&mut self, name: &str, value: usize) {
        let value = self.checked(value);
        self.word(name, "u32", value);
    }

    /// `params.name`, an `f32`.
    pub(crate) fn param_f32(&mut self, name: &str, value: f32) {
        self.word(name, "f32", value.to_bits());
    }

    /// `params.table`, an array of `vec4<u32>`; at most one a kernel.
    pub(crate) fn table(&mut self, words: Vec<u32>) {
        self.table = words;
    }

    fn word(&mut self, name: &str, kind: &str, bits: u32) {
        let _ = writeln!(self.fields, "    {name}: {kind},");
        self.words.push(bits);
    }

    /// Indices are 32-bit in WGSL. A number that does not fit makes the kernel inapplicable.
    fn checked(&mut self, value: usize) -> u32 {
        u32::try_from(value).unwrap_or_else(|_| {
            self.failed = true;
            0
        })
    }

    /// Asks for an extension of the language by name.
    pub(crate) fn enable(&mut self, extension: &'static str) {
        self.extensions.push(extension);
    }

    /// Further functions for the body.
    pub(crate) fn function(&mut self, text: &str) {
        self.functions.push_str(text);
    }

    /// Binds an operand and generates its access functions:
    ///
    /// - `load_name(i)`: element `i`;
    /// - `load4_name(i)`: elements `i..i + 4`, where `i` is a multiple of four if `width` is four;
    /// - `tail4_name(i, left)`: the same with zeros for all but the first `left` ≥ 1. With `width` four it may read all
    ///   four, because rows then end at multiples of four.
    pub(crate) fn operand(&mut self, name: &str, operand: &Operand<'_>, width: Width) {
        let count = operand.shape.iter().try_fold(1usize, |n, extent| n.checked_mul(*extent));
        let elements = self.checked(count.unwrap_or(usize::MAX));
        if operand.format == Format::Q8_0 {
            self.failed |= !graph::q8_0::fits(elements as usize);
            self.param(&format!("{name}_scales"), elements as usize / 4);
        }
        self.f16 |= operand.format == Format::F16;
        let element = match (operand.format, width) {
            (Format::F32, Width::One) => "f32",
            (Format::F32, Width::Four) => "vec4<f32>",
            (Format::F16, Width::One) => "f16",
            (Format::F16, Width::Four) => "vec4<f16>",
            (Format::PackedF16, Width::One) | (Format::Q8_0, _) => "u32",
            (Format::PackedF16, Width::Four) => "vec2<u32>",
        };
        self.bind(name, "read", element);
        self.loads(name, operand.format, width);
    }

    /// Access functions for an operand that the problem does not have. They return zero.
    pub(crate) fn absent(&mut self, name: &str) {
        let _ = write!(
            self.functions,
            "fn load_{name}(i: u32) -> f32 {{\n    return 0.0;\n}}\n\
             fn tail4_{name}(i: u32, left: u32) -> vec4<f32> {{\n    return vec4<f32>();\n}}\n"
        );
    }

    /// `alias NAME`: vectors of four in which workgroup memory holds parts of these operands, halves where all of them are of
    /// halves in memory.
    pub(crate) fn part<'a>(&mut self, name: &str, mut operands: impl Iterator<Item = &'a Operand<'a>>) {
        let half = operands.all(|operand| operand.format == Format::F16);
        let _ = writeln!(self.constants, "alias {name} = vec4<{}>;", if half { "f16" } else { "f32" });
    }

    fn bind(&mut self, name: &str, access: &str, element: &str) {
        let binding = self.bindings;
        let _ = writeln!(
            self.declarations,
            "@group(0) @binding({binding}) var<storage, {access}> {name}: array<{element}>;"
        );
        self.bindings += 1;
    }

    fn loads(&mut self, name: &str, format: Format, width: Width) {
        let one = match (format, width) {
            (Format::F32, Width::One) => format!("return {name}[i];"),
            (Format::F32, Width::Four) => format!("return {name}[i >> 2u][i & 3u];"),
            (Format::F16, Width::One) => format!("return f32({name}[i]);"),
            (Format::F16, Width::Four) => format!("return f32({name}[i >> 2u][i & 3u]);"),
            (Format::PackedF16, Width::One) => format!(
                "let pair = unpack2x16float({name}[i >> 1u]);\n    return select(pair.x, pair.y, (i & 1u) == 1u);"
            ),
            (Format::PackedF16, Width::Four) => format!(
                "let pair = unpack2x16float({name}[i >> 2u][(i >> 1u) & 1u]);\n    \
                 return select(pair.x, pair.y, (i & 1u) == 1u);"
            ),
            (Format::Q8_0, _) => format!(
                "let quant = extractBits(bitcast<i32>({name}[i >> 2u]), (i & 3u) * 8u, 8u);\n    \
                 return f32(quant) * scale_{name}(i >> 5u);"
            ),
        };
        let four = match (format, width) {
            (_, Width::One) => format!(
                "return vec4<f32>(load_{name}(i), load_{name}(i + 1u), load_{name}(i + 2u), load_{name}(i + 3u));"
            ),
            (Format::F32, Width::Four) => format!("return {name}[i >> 2u];"),
            (Format::F16, Width::Four) => format!("return vec4<f32>({name}[i >> 2u]);"),
            (Format::PackedF16, Width::Four) => format!(
                "let words = {name}[i >> 2u];\n    \
                 return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));"
            ),
            // Rows are whole blocks, so four neighbours from a multiple of four on share one.
            (Format::Q8_0, Width::Four) => {
                format!("return vec4<f32>(unpack4xI8({name}[i >> 2u])) * scale_{name}(i >> 5u);")
            }
        };
        let tail = match width {
            Width::Four => format!("return load4_{name}(i);"),
            Width::One => format!(
                "if (left >= 4u) {{\n        return load4_{name}(i);\n    }}\n    \
                 var v = vec4<f32>(load_{name}(i), 0.0, 0.0, 0.0);\n    \
                 if (left > 1u) {{\n        v.y = load_{name}(i + 1u);\n    }}\n    \
                 if (left > 2u) {{\n        v.z = load_{name}(i + 2u);\n    }}\n    \
                 return v;"
            ),
        };
        if format == Format::Q8_0 {
            let _ = write!(
                self.functions,
                "fn scale_{name}(block: u32) -> f32 {{\n    \
                 let pair = unpack2x16float({name}[params.{name}_scales + (block >> 1u)]);\n    \
                 return select(pair.x, pair.y, (block & 1u) == 1u);\n}}\n"
            );
        }
        let _ = write!(
            self.functions,
            "fn load_{name}(i: u32) -> f32 {{\n    {one}\n}}\n\
             fn load4_{name}(i: u32) -> vec4<f32> {{\n    {four}\n}}\n\
             fn tail4_{name}(i: u32, left: u32) -> vec4<f32> {{\n    {tail}\n}}\n"
        );
    }

    /// Binds the epilogue's operands (named `x1`, `x2`, …) and the result `y`, and generates its store functions, which
    /// apply the epilogue:
    ///
    /// - `store_y(i, v)`, only with `width` one: element `i`;
    /// - `store4_y(i, v, left)`: elements `i..i + 4`, but only the first `left` ≥ 1 of them with `width` one.
    ///
    /// `width` may be four only where the last axis of the result is a multiple of four.
    pub(crate) fn result(&mut self, problem: &Problem<'_>, width: Width) {
        for (extra, name) in problem.extras.iter().zip(1..) {
            let strided = Strided::broadcast(extra.shape, problem.out);
            let own = if width == Width::Four && strided.is_contiguous() { Width::Four } else { Width::One };
            self.operand(&format!("x{name}"), extra, own);
        }
        self.output(problem, width);
        let simplified = problem.epilogue.map(graph::Expr::simplify);
        let expr = simplified.unwrap_or(graph::Expr::Input(0));
        let shapes: Vec<Option<&[usize]>> =
            std::iter::once(None).chain(problem.extras.iter().map(|extra| Some(extra.shape))).collect();
        expression::function(self, "epilogue", &expr, &shapes, problem.out, width);
        self.function(match width {
            Width::One => {
                "fn store_y(i: u32, v: f32) {\n    y[i] = kept(epilogue(v, i));\n}\n\
                 fn store4_y(i: u32, v: vec4<f32>, left: u32) {\n    \
                 store_y(i, v.x);\n    \
                 if (left > 1u) {\n        store_y(i + 1u, v.y);\n    }\n    \
                 if (left > 2u) {\n        store_y(i + 2u, v.z);\n    }\n    \
                 if (left > 3u) {\n        store_y(i + 3u, v.w);\n    }\n}\n"
            }
            Width::Four => {
                "fn store4_y(i: u32, v: vec4<f32>, left: u32) {\n    y[i >> 2u] = kept4(epilogue4(v, i));\n}\n"
            }
        });
    }

    /// Binds the result `y`, and generates `kept(v)` and `kept4(v)`, which turn what was computed into what `y` holds. What is
    /// beyond half precision becomes its largest number and not infinite, whose differences are no numbers.
    pub(crate) fn output(&mut self, problem: &Problem<'_>, width: Width) {
        self.checked(graph::shape::numel(problem.out));
        let half = problem.result == Format::F16;
        self.f16 |= half;
        let scalar = if half { "f16" } else { "f32" };
        self.bind("y", "read_write", &if width == Width::Four { format!("vec4<{scalar}>") } else { scalar.into() });
        let (one, four) = match half {
            true => {
                ("f16(clamp(v, -65504.0, 65504.0))", "vec4<f16>(clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0)))")
            }
            false => ("v", "v"),
        };
        let _ = write!(
            self.functions,
            "fn kept(v: f32) -> {scalar} {{\n    return {one};\n}}\n\
             fn kept4(v: vec4<f32>) -> vec4<{scalar}> {{\n    return {four};\n}}\n"
        );
    }

    /// Puts the prelude before the bodies. At least `groups` workgroups run. They lie along a line that is folded over
    /// two dimensions where it is too long for one; `linear_group` computes the position on the line.
    pub(crate) fn compose(
        mut self,
        kernel: &'static str,
        bodies: &[&str],
        groups: usize,
        profile: &Profile,
    ) -> Option<Shader> {
        let groups = self.checked(groups);
        let folds = groups.div_ceil(profile.max_groups).max(1);
        let groups = [groups.div_ceil(folds), folds, 1];
        self.words[0] = groups[0];
        if !self.table.is_empty() {
            self.words.resize(self.words.len().next_multiple_of(4), 0);
            let _ = writeln!(self.fields, "    @align(16) table: array<vec4<u32>, {}>,", self.table.len().div_ceil(4));
            self.words.append(&mut self.table);
        }
        let fits = self.bindings <= profile.max_storage_bindings
            && (profile.shader_f16 || !self.f16)
            && self.workgroup.iter().product::<u32>() <= profile.max_workgroup_invocations
            && self.workgroup.iter().zip(&profile.max_workgroup_size).all(|(own, limit)| own <= limit)
            && folds <= profile.max_groups
            && self.words.len() <= MAX_PARAMS;
        if self.failed || !fits {
            return None;
        }
        let mut source = String::new();
        if self.f16 {
            source.push_str("enable f16;\n");
        }
        for extension in &self.extensions {
            let _ = writeln!(source, "enable {extension};");
        }
        let _ = write!(
            source,
            "{}struct Params {{\n{}}}\n{}@group(0) @binding({}) var<uniform> params: Params;\n\
             fn linear_group(group: vec3<u32>) -> u32 {{\n    return group.y * params.groups_x + group.x;\n}}\n{}",
            self.constants, self.fields, self.declarations, self.bindings, self.functions
        );
        for body in bodies {
            source.push('\n');
            source.push_str(body);
        }
        Some(Shader { kernel, source, groups, params: self.words })
    }
}

/// Words a uniform buffer may hold everywhere: OpenGL ES promises 16 KiB.
const MAX_PARAMS: usize = 4096;

/// The workgroup size of kernels whose invocations do not cooperate.
pub(crate) fn lone_workgroup(profile: &Profile) -> u32 {
    profile.max_workgroup_invocations.min(profile.max_workgroup_size[0]).min(64)
}
