//! Elementwise expression trees: the body of one fused loop, which each device translates to its own language.

use crate::array::Real;
use std::fmt;

/// A scalar function of some numbered inputs.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// The `i`-th input's element at this position.
    Input(usize),
    /// A number known when the graph is built.
    Const(f64),
    /// A function of one value.
    Unary(Unary, Box<Expr>),
    /// A function of two values.
    Binary(Binary, Box<Expr>, Box<Expr>),
}

/// Functions of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unary {
    /// −x
    Neg,
    /// |x|
    Abs,
    /// eˣ
    Exp,
    /// Natural logarithm.
    Ln,
    /// √x
    Sqrt,
    /// Sine of radians.
    Sin,
    /// Cosine of radians.
    Cos,
    /// Hyperbolic tangent.
    Tanh,
    /// 1 / (1 + e⁻ˣ)
    Sigmoid,
    /// x · sigmoid(x), also called swish (Elfwing et al. 2017).
    Silu,
    /// x · Φ(x) with the exact normal distribution function (Hendrycks & Gimpel 2016).
    Gelu,
    /// The tanh approximation of GELU, PyTorch's `approximate="tanh"`.
    GeluTanh,
    /// x · sigmoid(1.702 x), CLIP's activation.
    QuickGelu,
    /// max(x, 0)
    Relu,
}

/// Functions of two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Binary {
    /// a + b
    Add,
    /// a − b
    Sub,
    /// a · b
    Mul,
    /// a / b
    Div,
    /// The smaller value.
    Min,
    /// The larger value.
    Max,
}

impl Unary {
    /// All of them, for tests and tables.
    pub const ALL: [Unary; 14] = [
        Unary::Neg,
        Unary::Abs,
        Unary::Exp,
        Unary::Ln,
        Unary::Sqrt,
        Unary::Sin,
        Unary::Cos,
        Unary::Tanh,
        Unary::Sigmoid,
        Unary::Silu,
        Unary::Gelu,
        Unary::GeluTanh,
        Unary::QuickGelu,
        Unary::Relu,
    ];

    /// The function's name, which is also the name of its kernel function.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Unary::Neg => "neg",
            Unary::Abs => "abs",
            Unary::Exp => "exp",
            Unary::Ln => "ln",
            Unary::Sqrt => "sqrt",
            Unary::Sin => "sin",
            Unary::Cos => "cos",
            Unary::Tanh => "tanh",
            Unary::Sigmoid => "sigmoid",
            Unary::Silu => "silu",
            Unary::Gelu => "gelu",
            Unary::GeluTanh => "gelu_tanh",
            Unary::QuickGelu => "quick_gelu",
            Unary::Relu => "relu",
        }
    }

    /// The function itself, in `f64`.
    #[must_use]
    pub fn apply(self, x: f64) -> f64 {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        match self {
            Unary::Neg => -x,
            Unary::Abs => x.abs(),
            Unary::Exp => x.exp(),
            Unary::Ln => x.ln(),
            Unary::Sqrt => x.sqrt(),
            Unary::Sin => x.sin(),
            Unary::Cos => x.cos(),
            Unary::Tanh => x.tanh(),
            Unary::Sigmoid => sigmoid(x),
            Unary::Silu => x * sigmoid(x),
            Unary::Gelu => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
            Unary::GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
                0.5 * x * (1.0 + inner.tanh())
            }
            Unary::QuickGelu => x * sigmoid(1.702 * x),
            Unary::Relu => x.max(0.0),
        }
    }

    /// Whether evaluating it twice would cost more than storing its result.
    #[must_use]
    pub fn is_costly(self) -> bool {
        !matches!(self, Unary::Neg | Unary::Abs | Unary::Relu)
    }
}

impl Binary {
    /// All of them, for tests and tables.
    pub const ALL: [Binary; 6] = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Min, Binary::Max];

    /// The function's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Binary::Add => "add",
            Binary::Sub => "sub",
            Binary::Mul => "mul",
            Binary::Div => "div",
            Binary::Min => "min",
            Binary::Max => "max",
        }
    }

    /// The function itself, in any precision.
    pub fn apply<T: Real>(self, a: T, b: T) -> T {
        match self {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            Binary::Min => {
                if b < a {
                    b
                } else {
                    a
                }
            }
            Binary::Max => {
                if b > a {
                    b
                } else {
                    a
                }
            }
        }
    }
}

impl Expr {
    /// A function of one expression.
    #[must_use]
    pub fn unary(op: Unary, x: Expr) -> Expr {
        Expr::Unary(op, Box::new(x))
    }

    /// A function of two expressions.
    #[must_use]
    pub fn binary(op: Binary, a: Expr, b: Expr) -> Expr {
        Expr::Binary(op, Box::new(a), Box::new(b))
    }

    /// The value at one position, given the inputs' elements there.
    pub fn eval<T: Real>(&self, inputs: &[T]) -> T {
        match self {
            Expr::Input(i) => inputs[*i],
            Expr::Const(value) => T::from_f64(*value),
            Expr::Unary(op, x) => x.eval(inputs).map(|x| op.apply(x)),
            Expr::Binary(op, a, b) => op.apply(a.eval(inputs), b.eval(inputs)),
        }
    }

    /// Replaces every input `i` by `replacement(i)`.
    #[must_use]
    pub fn substitute(&self, replacement: &impl Fn(usize) -> Expr) -> Expr {
        match self {
            Expr::Input(i) => replacement(*i),
            Expr::Const(value) => Expr::Const(*value),
            Expr::Unary(op, x) => Expr::unary(*op, x.substitute(replacement)),
            Expr::Binary(op, a, b) => Expr::binary(*op, a.substitute(replacement), b.substitute(replacement)),
        }
    }

    /// How many times input `i` is read.
    #[must_use]
    pub fn count(&self, input: usize) -> usize {
        match self {
            Expr::Input(i) => usize::from(*i == input),
            Expr::Const(_) => 0,
            Expr::Unary(_, x) => x.count(input),
            Expr::Binary(_, a, b) => a.count(input) + b.count(input),
        }
    }

    /// Number of arithmetic operations per element.
    #[must_use]
    pub fn flops(&self) -> u64 {
        match self {
            Expr::Input(_) | Expr::Const(_) => 0,
            Expr::Unary(_, x) => 1 + x.flops(),
            Expr::Binary(_, a, b) => 1 + a.flops() + b.flops(),
        }
    }

    /// Whether it contains a function worth computing only once.
    #[must_use]
    pub fn is_costly(&self) -> bool {
        match self {
            Expr::Input(_) | Expr::Const(_) => false,
            Expr::Unary(op, x) => op.is_costly() || x.is_costly(),
            Expr::Binary(op, a, b) => *op == Binary::Div || a.is_costly() || b.is_costly(),
        }
    }

    /// Folds constants and removes neutral elements. Never changes a finite result: `x·0` stays, because x may be NaN.
    #[must_use]
    pub fn simplify(&self) -> Expr {
        match self {
            Expr::Input(_) | Expr::Const(_) => self.clone(),
            Expr::Unary(op, x) => match x.simplify() {
                Expr::Const(value) => Expr::Const(op.apply(value)),
                x => Expr::unary(*op, x),
            },
            Expr::Binary(op, a, b) => match (op, a.simplify(), b.simplify()) {
                (_, Expr::Const(a), Expr::Const(b)) => Expr::Const(op.apply(a, b)),
                (Binary::Add, x, Expr::Const(0.0)) | (Binary::Add, Expr::Const(0.0), x) => x,
                (Binary::Sub, x, Expr::Const(0.0)) => x,
                (Binary::Mul, x, Expr::Const(1.0)) | (Binary::Mul, Expr::Const(1.0), x) => x,
                (Binary::Div, x, Expr::Const(1.0)) => x,
                (op, a, b) => Expr::binary(*op, a, b),
            },
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Input(i) => write!(f, "x{i}"),
            Expr::Const(value) => write!(f, "{value}"),
            Expr::Unary(op, x) => write!(f, "{}({x})", op.name()),
            Expr::Binary(op, a, b) => write!(f, "{}({a}, {b})", op.name()),
        }
    }
}
