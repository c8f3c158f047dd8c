//! Expressions, and how their operands are stretched.

use super::{Case, Source, Values, add, elementwise_case, mul, signed, x};
use crate::expr::{Binary, Expr, Unary};

pub(super) fn elementwise() -> Vec<Case> {
    let mut all = Vec::new();
    for op in Unary::ALL {
        let values = if matches!(op, Unary::Ln | Unary::Sqrt) { Values::Positive } else { Values::Signed };
        all.push(elementwise_case(op.name(), Expr::unary(op, x(0)), vec![Source::new(&[3, 37], values)]));
    }
    let pairs: [(&[usize], &[usize]); 9] = [
        (&[5, 8], &[5, 8]),
        (&[7], &[7]),
        (&[5, 300], &[300]),
        (&[5, 300], &[5, 1]),
        (&[2, 1, 33], &[1, 9, 33]),
        (&[3, 1, 5, 1], &[2, 1, 700]),
        (&[1], &[4, 3]),
        (&[64, 64, 3], &[3]),
        (&[2, 64, 200], &[2, 1, 200]),
    ];
    for op in Binary::ALL {
        // Divisors stay away from zero.
        let right = if op == Binary::Div { Values::Positive } else { Values::Signed };
        for (a, b) in pairs {
            for (a, b) in if a == b { vec![(a, b)] } else { vec![(a, b), (b, a)] } {
                let label = format!("{} of {a:?} and {b:?}", op.name());
                let operands = vec![signed(a), Source::new(b, right)];
                all.push(elementwise_case(label, Expr::binary(op, x(0), x(1)), operands));
            }
        }
    }
    let sum = |count: usize| (1..count).fold(x(0), |sum, i| add(sum, mul(x(i), Expr::Const(0.25))));
    let stretched: [(&str, &[&[usize]]); 6] = [
        ("row over matrix", &[&[6, 16], &[16]]),
        ("column over matrix", &[&[6, 15], &[6, 1]]),
        ("both ways", &[&[5, 1, 3], &[4, 1]]),
        ("scalar", &[&[2, 9], &[]]),
        ("seven operands", &[&[3, 4], &[4], &[3, 1], &[1, 1], &[3, 4], &[1, 4], &[]]),
        ("six axes", &[&[2, 1, 3, 1, 2, 5], &[2, 1, 3, 1, 5]]),
    ];
    for (label, shapes) in stretched {
        let operands: Vec<Source> = shapes.iter().map(|shape| signed(shape)).collect();
        all.push(elementwise_case(label, sum(operands.len()), operands));
    }
    // c_skip · x + c_out · F, with numbers that text must not round.
    let combine = add(mul(x(0), Expr::Const(0.1)), mul(x(1), Expr::Const(-1.000_000_1e-3)));
    all.push(elementwise_case("constants", combine, vec![signed(&[2, 6, 6, 3]), signed(&[2, 6, 6, 3])]));
    all.extend(expressions());
    all
}

/// A constant alone, operands alone, and one expression in which parts and operands are repeated.
fn expressions() -> impl Iterator<Item = Case> {
    let one = Expr::binary;
    let square = mul(x(0), x(0));
    let left = one(Binary::Sub, Expr::Const(1.0), square.clone());
    let right = one(Binary::Div, x(1), add(square, Expr::Const(0.5)));
    let deep = one(Binary::Max, mul(left.clone(), right.clone()), one(Binary::Sub, right, left));
    let all = [("a constant", Expr::Const(0.3)), ("the first", x(0)), ("the second", x(1)), ("deep", deep)];
    all.into_iter().map(|(label, expr)| elementwise_case(label, expr, vec![signed(&[3, 1, 50]), signed(&[7, 1])]))
}
