use crate::array::{Array, Real};
use crate::graph::{Graph, Node};
use crate::op::Op;
use crate::ops;
use crate::weights::WeightSource;
use std::collections::HashMap;
use thiserror::Error;

/// Why a graph could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReferenceError {
    /// A weight or input that was not given, or has another shape.
    #[error("{0} is missing or has another shape than the graph's")]
    Unbound(String),
}

/// Evaluates a graph by every operation's reference, in `f64` (the result to compare with) or `f32`. Returns the
/// outputs in order.
///
/// # Errors
/// When an input or weight is missing or misshapen.
pub fn evaluate<T: Real>(
    graph: &Graph,
    inputs: &HashMap<&str, Array<T>>,
    weights: &dyn WeightSource,
) -> Result<Vec<Array<T>>, ReferenceError> {
    let mut values: Vec<Array<T>> = Vec::with_capacity(graph.nodes().len());
    for node in graph.nodes() {
        let value = match &node.op {
            Op::Input(input) => inputs
                .get(&*input.name)
                .filter(|array| array.shape == input.shape)
                .cloned()
                .ok_or_else(|| ReferenceError::Unbound(input.name.clone()))?,
            Op::Weight(weight) => {
                let view = weights.weight(&weight.name).filter(|view| view.shape == weight.shape);
                let view = view.ok_or_else(|| ReferenceError::Unbound(weight.name.clone()))?;
                let view = weight.value(view);
                Array::new(view.shape.clone(), view.to_f32()).cast()
            }
            _ => evaluate_node(node, &values),
        };
        values.push(value);
    }
    Ok(graph.outputs().iter().map(|(_, id)| values[id.index()].clone()).collect())
}

fn evaluate_node<T: Real>(node: &Node, values: &[Array<T>]) -> Array<T> {
    let operands: Vec<&Array<T>> = node.inputs.iter().map(|id| &values[id.index()]).collect();
    let value = node.op.reference(&operands, &node.shape);
    match &node.epilogue {
        None => value,
        Some(epilogue) => {
            let operands: Vec<&Array<T>> =
                std::iter::once(&value).chain(epilogue.inputs.iter().map(|id| &values[id.index()])).collect();
            ops::apply_expr(&epilogue.expr, &operands, &node.shape)
        }
    }
}
