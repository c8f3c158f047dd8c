//! Random graphs: what a plan of the optimised graph computes is what the references say of the graph as it was built.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Random, check_with, compare};
use cpu::CpuDevice;
use graph::expr::{Binary, Expr, Unary};
use graph::ops::{LayerNorm, MatMul};
use graph::random::{RandomGraph, random_graph};
use graph::{Rate, Scope, Tensor};

/// Grows a graph of larger values than the shared random graphs have, over `[batch, tokens, channels]` tensors by drawing operations.
struct Grower {
    scope: Scope,
    random: Random,
    tensors: Vec<Tensor>,
    weights: usize,
}

impl Grower {
    fn new(seed: u64) -> Grower {
        let mut random = Random(seed);
        let scope = Scope::root();
        let shape = [1 + random.below(3), 1 + random.below(20), 4 * (1 + random.below(12))];
        let tensors = vec![
            scope.input("x", &shape, Rate::Step),
            scope.input("prompt", &[shape[0], 1 + random.below(9), shape[2]], Rate::Once),
            scope.input("row", &[shape[0], 1, shape[2]], Rate::Once),
        ];
        Grower { scope, random, tensors, weights: 0 }
    }

    fn any(&mut self) -> Tensor {
        // Rather a late tensor, so that graphs grow deep.
        let len = self.tensors.len();
        let back = self.random.below(len).min(self.random.below(len));
        self.tensors[len - 1 - back].clone()
    }

    fn weight(&mut self, shape: &[usize]) -> Tensor {
        self.weights += 1;
        let fan = *shape.last().unwrap();
        self.scope.weight(&format!("w{}", self.weights), shape).scale(1.0 / (fan as f64).sqrt())
    }

    fn raw_weight(&mut self, shape: &[usize]) -> Tensor {
        self.weights += 1;
        self.scope.weight(&format!("w{}", self.weights), shape)
    }

    /// A tensor that broadcasts with `x` to `x`'s shape.
    fn partner(&mut self, x: &Tensor) -> Tensor {
        let fits = |other: &Tensor| graph::shape::broadcast(x.shape(), other.shape()).as_deref() == Some(x.shape());
        let known: Vec<Tensor> = self.tensors.iter().filter(|other| fits(other)).cloned().collect();
        match self.random.below(4) {
            0 => self.raw_weight(&[x.extent(-1)]),
            _ => known[self.random.below(known.len())].clone(),
        }
    }

    fn grow(&mut self) {
        let x = self.any();
        let [batch, tokens, channels] = x.shape()[..] else { panic!("all tensors have three axes") };
        let y = match self.random.below(11) {
            0 => {
                let out = 4 * (1 + self.random.below(12));
                // A weight scaled by an expression is no longer a weight, so it is also multiplied unpacked.
                let w = if self.random.below(2) == 0 {
                    self.weight(&[out, channels])
                } else {
                    self.raw_weight(&[out, channels])
                };
                let b = self.raw_weight(&[out]);
                self.scope.push(MatMul { transpose_b: true, bias: true }, &[&x, &w, &b])
            }
            1 => {
                let w = self.weight(&[channels, channels]);
                x.matmul(&w)
            }
            2 => x.layer_norm(1e-3),
            3 => {
                let (w, b) = (self.raw_weight(&[channels]), self.raw_weight(&[channels]));
                self.scope.push(LayerNorm { eps: 1e-3, affine: true }, &[&x, &w, &b])
            }
            4 => {
                let others = self.tensors.iter().filter(|k| k.extent(0) == batch && k.extent(-1) == channels);
                let keys: Vec<Tensor> = others.cloned().collect();
                let k = keys[self.random.below(keys.len())].clone();
                let heads = [1, 2, 4][self.random.below(3)];
                x.attention(&k, &k, heads, k.extent(1) == tokens && self.random.below(2) == 0, None)
            }
            5 | 6 => {
                let smooth = [Unary::Silu, Unary::Gelu, Unary::GeluTanh, Unary::QuickGelu, Unary::Tanh, Unary::Sigmoid];
                x.apply(smooth[self.random.below(smooth.len())])
            }
            7 | 8 => {
                let other = self.partner(&x);
                let op = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Max][self.random.below(4)];
                x.elementwise(Expr::binary(op, Expr::Input(0), Expr::Input(1)), &[&other])
            }
            9 => {
                let at = self.random.below(tokens);
                Tensor::concat(&[&x.slice(1, at..tokens), &x.slice(1, 0..at)], 1)
            }
            _ => x.reshape(&[batch, channels, tokens]).transpose(&[0, 2, 1]),
        };
        self.tensors.push(y);
    }
}

#[test]
fn plans_compute_what_the_references_say() {
    let devices = [CpuDevice::new(None).unwrap(), CpuDevice::new(Some(1)).unwrap()];
    for seed in 0..200 {
        let mut grower = Grower::new(seed);
        for _ in 0..2 + grower.random.below(12) {
            grower.grow();
        }
        let last = grower.tensors.last().unwrap().clone();
        let middle = grower.any();
        let graph = grower.scope.finish(&[("last", &last), ("middle", &middle)]).unwrap();
        // Twice the factor of single operations: a deep graph may amplify one operation's rounding in another's place.
        check_with(&devices[usize::from(seed % 5 == 0)], &graph, &[], seed, 8.0);
    }
}

/// Every operation there is, in the small graphs that all executors are tried on.
#[test]
fn shared_random_graphs_give_the_references_outputs() {
    let device = CpuDevice::new(None).unwrap();
    for seed in 0..200 {
        let RandomGraph { graph, inputs, weights } = random_graph(seed, 14);
        let inputs: Vec<_> = inputs
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.shape.clone(), value.cast::<f32>().data))
            .collect();
        compare(&device, &graph, &inputs, &weights, graph::PlanOptions::default(), 8.0, &format!("seed {seed}"));
    }
}
