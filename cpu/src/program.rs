//! Elementwise expressions as short programs: every instruction works on a block of elements.

use graph::Expr;
use graph::expr::{Binary, Unary};

/// Where an instruction reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Term {
    Operand(usize),
    Const(f32),
}

/// One instruction. An expression is a tree, so each intermediate value is read once and can be overwritten in place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Code {
    /// `r[to] = term`
    Load { to: usize, term: Term },
    /// `r[at] = op(r[at])`
    Map { op: Unary, at: usize },
    /// `r[at] = op(r[at], term)`, or `op(term, r[at])` when reversed.
    Fold { op: Binary, at: usize, term: Term, reversed: bool },
    /// `r[at] = op(r[at], r[at + 1])`
    Join { op: Binary, at: usize },
}

/// A compiled expression; its result is in register 0.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Program {
    pub(crate) code: Vec<Code>,
    pub(crate) registers: usize,
    /// Rough work per element, in simple operations.
    pub(crate) weight: usize,
}

impl Program {
    pub(crate) fn new(expr: &Expr) -> Program {
        let mut program = Program { code: Vec::new(), registers: 1, weight: 1 };
        program.compile(expr, 0);
        program
    }

    /// Emits code that leaves the expression's value in register `to` and uses no register below it.
    fn compile(&mut self, expr: &Expr, to: usize) {
        self.registers = self.registers.max(to + 1);
        match expr {
            Expr::Input(_) | Expr::Const(_) => {
                let term = term(expr).expect("inputs and constants are terms");
                self.code.push(Code::Load { to, term });
            }
            Expr::Unary(op, x) => {
                self.compile(x, to);
                self.weight += if op.is_costly() { 8 } else { 1 };
                self.code.push(Code::Map { op: *op, at: to });
            }
            Expr::Binary(op, a, b) => {
                self.weight += 1;
                match (term(a), term(b)) {
                    (_, Some(term)) => {
                        self.compile(a, to);
                        self.code.push(Code::Fold { op: *op, at: to, term, reversed: false });
                    }
                    (Some(term), None) => {
                        self.compile(b, to);
                        self.code.push(Code::Fold { op: *op, at: to, term, reversed: true });
                    }
                    (None, None) => {
                        self.compile(a, to);
                        self.compile(b, to + 1);
                        self.code.push(Code::Join { op: *op, at: to });
                    }
                }
            }
        }
    }
}

fn term(expr: &Expr) -> Option<Term> {
    match expr {
        Expr::Input(i) => Some(Term::Operand(*i)),
        // The reference in f32 also rounds constants to single precision.
        #[allow(clippy::cast_possible_truncation, reason = "rounding is the point")]
        Expr::Const(value) => Some(Term::Const(*value as f32)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_follow_the_depth_of_the_right_operands() {
        let x = || Expr::Input(0);
        let square = || Expr::binary(Binary::Mul, x(), x());
        let chain = Expr::binary(Binary::Add, Expr::binary(Binary::Mul, x(), Expr::Const(2.0)), Expr::Const(1.0));
        assert_eq!(Program::new(&chain).registers, 1);
        let both = Expr::binary(Binary::Sub, square(), square());
        assert_eq!(Program::new(&both).registers, 2);
        let right = Expr::binary(Binary::Sub, Expr::Const(1.0), Expr::unary(Unary::Exp, x()));
        let program = Program::new(&right);
        assert_eq!(program.registers, 1);
        let fold = Code::Fold { op: Binary::Sub, at: 0, term: Term::Const(1.0), reversed: true };
        assert_eq!(program.code.last(), Some(&fold));
    }
}
