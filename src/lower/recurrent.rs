//! Recurrent networks: RNN, GRU, LSTM. What the inputs contribute to the gates is one contraction over all steps; a
//! program for each direction then carries the state along, in parallel over the batch.

use super::formula::{X, formula};
use super::math::{binary, clamp, fold};
use super::program::Block;
use super::{Cx, Lower};
use crate::error::{Error, Kind, Result};
use crate::graph::AttrValue;
use crate::graph::ops::recurrent::Sizes;
use crate::kernel::{BinaryOp, ExprId, FoldOp, Ty, UnaryOp, ValueId, Values};
use crate::tensor::{DType, Dim};

pub(super) const ROWS: &[(&str, Lower)] = &[
    ("RNN", |cx| recurrent(cx, Cell::Rnn, &["Tanh"])),
    ("GRU", |cx| recurrent(cx, Cell::Gru, &["Sigmoid", "Tanh"])),
    ("LSTM", |cx| recurrent(cx, Cell::Lstm, &["Sigmoid", "Tanh", "Tanh"])),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Rnn,
    Gru,
    Lstm,
}

/// An activation function and its parameters.
#[derive(Debug, Clone, PartialEq)]
struct Activation {
    name: String,
    alpha: f64,
    beta: f64,
}

impl Activation {
    fn of<'a>(&self, x: X<'a>) -> X<'a> {
        let (a, b) = (self.alpha, self.beta);
        match self.name.as_str() {
            "relu" => x.max(0.0),
            "tanh" => x.unary(UnaryOp::Tanh),
            "sigmoid" => x.sigmoid(),
            "affine" => x * a + b,
            "leakyrelu" => x.lt(0.0).select(x * a, x),
            "thresholdedrelu" => x.gt(a).select(x, 0.0),
            "scaledtanh" => (x * b).unary(UnaryOp::Tanh) * a,
            "hardsigmoid" => (x * a + b).max(0.0).min(1.0),
            "elu" => x.lt(0.0).select(x.exp_m1() * a, x),
            "softsign" => x / (x.abs() + 1.0),
            // log(1 + eˣ) without overflow.
            _ => x.max(0.0) + (-x.abs()).exp().log_1p(),
        }
    }
}

/// The activations of every direction, in order. Parameters are given to those that take them, one after the other.
fn activations(cx: &Cx<'_>, directions: usize, defaults: &[&str]) -> Result<Vec<Activation>> {
    let names: Vec<String> = match cx.attrs().get("activations") {
        Some(AttrValue::Strs(list)) => list.iter().map(|s| s.to_ascii_lowercase()).collect(),
        _ => (0..directions).flat_map(|_| defaults).map(|s| s.to_ascii_lowercase()).collect(),
    };
    if names.len() != directions * defaults.len() {
        let what = format!("{} activations where {} are needed", names.len(), directions * defaults.len());
        return Err(Error::new(Kind::InvalidModel, what));
    }
    let mut alphas = cx.attrs().floats("activation_alpha")?.unwrap_or(&[]).iter();
    let mut betas = cx.attrs().floats("activation_beta")?.unwrap_or(&[]).iter();
    names
        .into_iter()
        .map(|name| {
            let (alpha, beta) = match name.as_str() {
                "relu" | "tanh" | "sigmoid" | "softsign" | "softplus" => (None, None),
                "affine" | "scaledtanh" => (Some(1.0), Some(if name == "affine" { 0.0 } else { 1.0 })),
                "leakyrelu" => (Some(0.01), None),
                "thresholdedrelu" | "elu" => (Some(1.0), None),
                "hardsigmoid" => (Some(0.2), Some(0.5)),
                _ => return Err(Error::new(Kind::InvalidModel, format!("there is no activation \"{name}\""))),
            };
            let alpha = alpha.map_or(0.0, |d| alphas.next().map_or(d, |a| f64::from(*a)));
            let beta = beta.map_or(0.0, |d| betas.next().map_or(d, |b| f64::from(*b)));
            Ok(Activation { name, alpha, beta })
        })
        .collect()
}

/// One direction of a network.
struct Direction {
    cell: Cell,
    number: ExprId,
    backwards: bool,
    activations: Vec<Activation>,
    clip: Option<f64>,
    dtype: DType,
    hidden: Dim,
    /// What the inputs contribute to each gate, biases that may be added beforehand included: `[steps, batch, gates ·
    /// hidden]`.
    gates: ValueId,
    recurrent: ValueId,
    bias: Option<ValueId>,
    lengths: Option<ValueId>,
    state: Option<ValueId>,
    cell_state: Option<ValueId>,
    peepholes: Option<ValueId>,
    batch_first: bool,
    input_forget: bool,
    linear_before_reset: bool,
}

fn recurrent(cx: &mut Cx<'_>, cell: Cell, defaults: &[&str]) -> Result<Vec<ValueId>> {
    let (x, w, r) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let count = match cell {
        Cell::Rnn => 1,
        Cell::Gru => 3,
        Cell::Lstm => 4,
    };
    let s = Sizes::new(cx.attrs(), &cx.shape(0)?, &cx.shape(1)?, &cx.shape(2)?, count)?;
    let all = activations(cx, s.backwards.len(), defaults)?;
    let clip = match cx.attrs().get("clip") {
        Some(_) => Some(f64::from(cx.attrs().float("clip")?)),
        None => None,
    };
    let dtype = cx.values.dtype(x);
    let linear = cell == Cell::Gru && cx.attrs().flag("linear_before_reset")?;
    let input_forget = cell == Cell::Lstm && cx.attrs().flag("input_forget")?;
    let bias = cx.optional(3);
    // Per direction, the values that [`Direction::run`] gives.
    let mut results: Vec<Vec<ValueId>> = vec![];
    for (n, backwards) in s.backwards.iter().enumerate() {
        let number = cx.values.arena.int(i64::try_from(n).unwrap_or(0));
        let width = s.hidden.mul(&Dim::from(count));
        let gates = cx.values.func(dtype, vec![s.steps.clone(), s.batch.clone(), width.clone()], |vs, i| {
            let mut sum = fold(vs, FoldOp::Sum, std::slice::from_ref(&s.inputs), |vs, k| {
                let at = if s.batch_first { [i[1], i[0], k[0]] } else { [i[0], i[1], k[0]] };
                let (x, w) = (vs.load(x, &at), vs.load(w, &[number, i[2], k[0]]));
                Ok(vs.arena.mul(x, w))
            })?;
            if let Some(b) = bias {
                let b1 = vs.load(b, &[number, i[2]]);
                sum = vs.arena.add(sum, b1);
                let width = vs.arena.dim(&width);
                let at = vs.arena.add(i[2], width);
                let mut b2 = vs.load(b, &[number, at]);
                if linear {
                    // The candidate's recurrent bias is inside of the reset.
                    let candidate = vs.arena.dim(&s.hidden.mul(&Dim::from(2)));
                    let before = vs.arena.lt(i[2], candidate);
                    let zero = vs.arena.real(Ty::of(dtype), 0.0);
                    b2 = vs.arena.select(before, b2, zero);
                }
                sum = vs.arena.add(sum, b2);
            }
            Ok(sum)
        })?;
        let d = Direction {
            cell,
            number,
            backwards: *backwards,
            activations: all[n * defaults.len()..(n + 1) * defaults.len()].to_vec(),
            clip,
            dtype,
            hidden: s.hidden.clone(),
            gates,
            recurrent: r,
            bias: bias.filter(|_| linear),
            lengths: cx.optional(4),
            state: cx.optional(5),
            cell_state: cx.optional(6).filter(|_| cell == Cell::Lstm),
            peepholes: cx.optional(7).filter(|_| cell == Cell::Lstm),
            batch_first: s.batch_first,
            input_forget,
            linear_before_reset: linear,
        };
        results.push(d.run(cx.values, &s)?);
    }
    let mut out = vec![];
    for (sequence, kind) in [(true, 0), (false, 1), (false, 3)] {
        if kind == 3 && cell != Cell::Lstm {
            break;
        }
        let shape = if sequence { s.sequence() } else { s.state() };
        out.push(cx.values.func(dtype, shape, |vs, i| {
            let (d, at) = match (sequence, s.batch_first) {
                (true, false) => (i[1], vec![i[0], i[2], i[3]]),
                (true, true) => (i[2], vec![i[1], i[0], i[3]]),
                (false, false) => (i[0], vec![i[1], i[2]]),
                (false, true) => (i[1], vec![i[0], i[2]]),
            };
            let first = vs.load(results[0][kind], &at);
            Ok(match results.get(1) {
                Some(r) => {
                    let zero = vs.arena.int(0);
                    let is_first = binary(vs, BinaryOp::Eq, d, zero);
                    let second = vs.load(r[kind], &at);
                    vs.arena.select(is_first, first, second)
                }
                None => first,
            })
        })?);
    }
    Ok(out)
}

impl Direction {
    /// The element of an initial state of this direction; zero where it is not given.
    fn initial(&self, vs: &mut Values, state: Option<ValueId>, b: ExprId, j: ExprId) -> ExprId {
        match state {
            Some(v) => vs.load(v, &if self.batch_first { [b, self.number, j] } else { [self.number, b, j] }),
            None => vs.arena.real(Ty::of(self.dtype), 0.0),
        }
    }

    /// Row `j` of gate `gate`.
    fn row(&self, vs: &mut Values, gate: i64, j: ExprId) -> ExprId {
        let first = vs.arena.dim(&self.hidden.mul(&Dim::from(gate)));
        vs.arena.add(j, first)
    }

    /// `Σ over k of state[k] · R[gate, j, k]`.
    fn product(&self, vs: &mut Values, state: ValueId, b: ExprId, gate: i64, j: ExprId) -> Result<ExprId> {
        let row = self.row(vs, gate, j);
        fold(vs, FoldOp::Sum, std::slice::from_ref(&self.hidden), |vs, k| {
            let (h, r) = (vs.load(state, &[b, k[0]]), vs.load(self.recurrent, &[self.number, row, k[0]]));
            Ok(vs.arena.mul(h, r))
        })
    }

    /// What the inputs contribute to gate `gate` of unit `j` at step `t`.
    fn input(&self, vs: &mut Values, [t, b]: [ExprId; 2], gate: i64, j: ExprId) -> ExprId {
        let row = self.row(vs, gate, j);
        vs.load(self.gates, &[t, b, row])
    }

    fn clipped(&self, vs: &mut Values, x: ExprId) -> ExprId {
        let Some(c) = self.clip else { return x };
        let ty = vs.arena.ty(x);
        let (low, high) = (vs.arena.real(ty, -c), vs.arena.real(ty, c));
        clamp(vs, x, low, high)
    }

    fn activate(&self, vs: &mut Values, n: usize, x: ExprId) -> ExprId {
        let x = self.clipped(vs, x);
        formula(&mut vs.arena, &[x], |x| self.activations[n].of(x[0]))
    }

    /// Runs over all steps: gives every state `[steps, batch, hidden]`, the last state, scratch for the next state, and
    /// as the cell needs them the last cell state of an LSTM, or what a GRU's reset leaves of the state and its update
    /// gate, all `[batch, hidden]`.
    fn run(&self, vs: &mut Values, s: &Sizes) -> Result<Vec<ValueId>> {
        let one = vec![s.batch.clone(), s.hidden.clone()];
        let sequence = vec![s.steps.clone(), s.batch.clone(), s.hidden.clone()];
        let states = match self.cell {
            Cell::Rnn => 2,
            Cell::Gru => 4,
            Cell::Lstm => 3,
        };
        let mut writes = vec![(self.dtype, sequence)];
        writes.resize(states + 1, (self.dtype, one));
        vs.program(writes, |vs, out| {
            let axis = vs.arena.axis(s.batch.clone());
            let b = vs.arena.axis_expr(axis);
            let mut block = Block::new(vs);
            block.each(&s.hidden, |block, j| {
                let h = self.initial(block.vs, self.state, b, j);
                block.store(out[1], &[b, j], h);
                if self.cell == Cell::Lstm {
                    let c = self.initial(block.vs, self.cell_state, b, j);
                    block.store(out[3], &[b, j], c);
                }
                Ok(())
            })?;
            let steps = block.vs.arena.dim(&s.steps);
            let length = match self.lengths {
                Some(v) => {
                    let n = block.vs.load(v, &[b]);
                    let n = block.vs.arena.cast(Ty::I32, n);
                    let zero = block.vs.arena.int(0);
                    let n = clamp(block.vs, n, zero, steps);
                    Some(block.once(n))
                }
                None => None,
            };
            block.each(&s.steps, |block, step| {
                let t = if self.backwards {
                    let last = length.unwrap_or(steps);
                    let one = block.vs.arena.int(1);
                    let last = block.vs.arena.sub(last, one);
                    block.vs.arena.sub(last, step)
                } else {
                    step
                };
                let Some(n) = length else { return self.step(block, out, [t, b]) };
                let before = block.vs.arena.lt(step, n);
                block.when_else(
                    before,
                    |block| self.step(block, out, [t, b]),
                    |block| {
                        block.each(&s.hidden, |block, j| {
                            let zero = block.vs.arena.real(Ty::of(self.dtype), 0.0);
                            block.store(out[0], &[step, b, j], zero);
                            Ok(())
                        })
                    },
                )
            })?;
            Ok((vec![axis], block.stmts))
        })
    }

    /// One step: the next state from the state, then the state and its place in the sequence.
    fn step(&self, block: &mut Block<'_>, out: &[ValueId], [t, b]: [ExprId; 2]) -> Result<()> {
        let (h, next) = (out[1], out[2]);
        match self.cell {
            Cell::Rnn => block.each(&self.hidden, |block, j| {
                let vs = &mut *block.vs;
                let (x, r) = (self.input(vs, [t, b], 0, j), self.product(vs, h, b, 0, j)?);
                let sum = vs.arena.add(x, r);
                let y = self.activate(vs, 0, sum);
                block.store(next, &[b, j], y);
                Ok(())
            })?,
            Cell::Gru => self.gru(block, out, [t, b])?,
            Cell::Lstm => block.each(&self.hidden, |block, j| self.lstm(block, out, [t, b], j))?,
        }
        block.each(&self.hidden, |block, j| {
            let y = block.vs.load(next, &[b, j]);
            block.store(h, &[b, j], y);
            block.store(out[0], &[t, b, j], y);
            Ok(())
        })
    }

    fn gru(&self, block: &mut Block<'_>, out: &[ValueId], [t, b]: [ExprId; 2]) -> Result<()> {
        let (h, next, reset, update) = (out[1], out[2], out[3], out[4]);
        block.each(&self.hidden, |block, j| {
            let vs = &mut *block.vs;
            let mut gate = |n: i64| -> Result<ExprId> {
                let (x, r) = (self.input(vs, [t, b], n, j), self.product(vs, h, b, n, j)?);
                let sum = vs.arena.add(x, r);
                Ok(self.activate(vs, 0, sum))
            };
            let (z, mut r) = (gate(0)?, gate(1)?);
            if !self.linear_before_reset {
                let state = vs.load(h, &[b, j]);
                r = vs.arena.mul(r, state);
            }
            block.store(update, &[b, j], z);
            block.store(reset, &[b, j], r);
            Ok(())
        })?;
        block.each(&self.hidden, |block, j| {
            let vs = &mut *block.vs;
            let x = self.input(vs, [t, b], 2, j);
            let r = if self.linear_before_reset {
                let mut r = self.product(vs, h, b, 2, j)?;
                if let Some(bias) = self.bias {
                    let at = self.row(vs, 5, j);
                    let bias = vs.load(bias, &[self.number, at]);
                    r = vs.arena.add(r, bias);
                }
                let gate = vs.load(reset, &[b, j]);
                vs.arena.mul(gate, r)
            } else {
                self.product(vs, reset, b, 2, j)?
            };
            let sum = vs.arena.add(x, r);
            let candidate = self.activate(vs, 1, sum);
            let (z, state) = (vs.load(update, &[b, j]), vs.load(h, &[b, j]));
            let y = formula(&mut vs.arena, &[candidate, z, state], |x| (x[1].number(1.0) - x[1]) * x[0] + x[1] * x[2]);
            block.store(next, &[b, j], y);
            Ok(())
        })
    }

    /// Gates stand in the order input, output, forget, cell; peepholes in the order input, output, forget.
    fn lstm(&self, block: &mut Block<'_>, out: &[ValueId], [t, b]: [ExprId; 2], j: ExprId) -> Result<()> {
        let (h, next, c) = (out[1], out[2], out[3]);
        let vs = &mut *block.vs;
        let old = vs.load(c, &[b, j]);
        let gate = |vs: &mut Values, n: i64, peephole: Option<(i64, ExprId)>| -> Result<ExprId> {
            let (x, r) = (self.input(vs, [t, b], n, j), self.product(vs, h, b, n, j)?);
            let mut sum = vs.arena.add(x, r);
            if let (Some(p), Some((n, cell))) = (self.peepholes, peephole) {
                let at = self.row(vs, n, j);
                let p = vs.load(p, &[self.number, at]);
                let p = vs.arena.mul(p, cell);
                sum = vs.arena.add(sum, p);
            }
            Ok(self.activate(vs, usize::from(n == 3), sum))
        };
        let i = gate(vs, 0, Some((0, old)))?;
        let i = block.once(i);
        let f = if self.input_forget {
            formula(&mut block.vs.arena, &[i], |i| i[0].number(1.0) - i[0])
        } else {
            gate(block.vs, 2, Some((2, old)))?
        };
        let g = gate(block.vs, 3, None)?;
        let new = formula(&mut block.vs.arena, &[f, old, i, g], |x| x[0] * x[1] + x[2] * x[3]);
        let new = block.once(new);
        let o = gate(block.vs, 1, Some((1, new)))?;
        let y = formula(&mut block.vs.arena, &[new], |c| self.activations[2].of(c[0]));
        let y = block.vs.arena.mul(o, y);
        block.store(next, &[b, j], y);
        block.store(c, &[b, j], new);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::AttrValue::{Float, Floats, Int, Str, Strs};
    use crate::lower::testing::{In, array, f32s, near, ramp};
    use crate::tensor::DType;

    /// Absolute and relative. What is wanted was computed by ONNX Runtime 1.31.
    const TOLERANCE: (f64, f64) = (1e-5, 1e-4);

    #[test]
    fn networks() {
        near(
            "plain",
            "RNN",
            &[("hidden_size", Int(2))],
            &[
                In::Data(ramp(&[3, 2, 2], 7, 0.25)),
                In::Data(ramp(&[1, 2, 2], 3, 0.25)),
                In::Data(ramp(&[1, 2, 2], 5, 0.25)),
                In::Data(ramp(&[1, 4], 4, 0.125)),
            ],
            &[
                f32s(
                    &[3, 1, 2, 2],
                    &[
                        0.786619, -0.41157, -0.244919, 0.462117, -0.82452, -0.222547, -0.83177, -0.662175, 0.929629,
                        -0.800504, 0.938726, -0.992801,
                    ],
                ),
                f32s(&[1, 2, 2], &[0.929629, -0.800504, 0.938726, -0.992801]),
            ],
            TOLERANCE,
        );
        near(
            "both directions of sequences of several lengths",
            "RNN",
            &[
                ("hidden_size", Int(2)),
                ("direction", Str("bidirectional".into())),
                ("activations", Strs(vec!["Relu".into(), "LeakyRelu".into()])),
                ("activation_alpha", Floats(vec![0.3])),
            ],
            &[
                In::Data(ramp(&[3, 2, 2], 7, 0.25)),
                In::Data(ramp(&[2, 2, 2], 3, 0.25)),
                In::Data(ramp(&[2, 2, 2], 5, 0.25)),
                In::Data(ramp(&[2, 4], 4, 0.125)),
                In::Data(array(DType::Int32, &[2], &[3.0, 2.0])),
                In::Data(ramp(&[2, 2, 2], 2, 0.125)),
            ],
            &[
                f32s(
                    &[3, 2, 2, 2],
                    &[
                        1.84375, 0.0, 0.0, 0.3125, 0.707812, 0.646094, -0.354375, 0.840625, 0.0, 0.992188, 0.0, 0.0,
                        -0.1125, -0.140625, -0.525, 0.9375, 0.625, 0.0, 0.0, 0.0, 0.5, 0.875, 0.0, 0.0,
                    ],
                ),
                f32s(&[2, 2, 2], &[0.625, 0.0, 0.0, 0.0, 0.707812, 0.646094, -0.354375, 0.840625]),
            ],
            TOLERANCE,
        );
        near(
            "gated",
            "GRU",
            &[("hidden_size", Int(2))],
            &[
                In::Data(ramp(&[3, 2, 2], 7, 0.25)),
                In::Data(ramp(&[1, 6, 2], 3, 0.25)),
                In::Data(ramp(&[1, 6, 2], 5, 0.25)),
                In::Data(ramp(&[1, 12], 4, 0.125)),
                In::Absent,
                In::Data(ramp(&[1, 2, 2], 2, 0.125)),
            ],
            &[
                f32s(
                    &[3, 1, 2, 2],
                    &[
                        -0.274065, -0.722844, 0.288411, -0.184451, -0.016865, 0.357307, -0.266287, 0.103217, 0.35977,
                        -0.175537, -0.0140582, 0.715539,
                    ],
                ),
                f32s(&[1, 2, 2], &[0.35977, -0.175537, -0.0140582, 0.715539]),
            ],
            TOLERANCE,
        );
        near(
            "linear before reset, backwards",
            "GRU",
            &[("hidden_size", Int(2)), ("linear_before_reset", Int(1)), ("direction", Str("reverse".into()))],
            &[
                In::Data(ramp(&[3, 2, 2], 7, 0.25)),
                In::Data(ramp(&[1, 6, 2], 3, 0.25)),
                In::Data(ramp(&[1, 6, 2], 5, 0.25)),
                In::Data(ramp(&[1, 12], 4, 0.125)),
                In::Data(array(DType::Int32, &[2], &[3.0, 1.0])),
            ],
            &[
                f32s(
                    &[3, 1, 2, 2],
                    &[
                        0.622982, -0.0928291, 0.374915, -0.232923, 0.420936, 0.325256, 0.0, 0.0, 0.396527, -0.338277,
                        0.0, 0.0,
                    ],
                ),
                f32s(&[1, 2, 2], &[0.622982, -0.0928291, 0.374915, -0.232923]),
            ],
            TOLERANCE,
        );
        near(
            "long short-term memory",
            "LSTM",
            &[("hidden_size", Int(2))],
            &[
                In::Data(ramp(&[3, 2, 2], 7, 0.25)),
                In::Data(ramp(&[1, 8, 2], 3, 0.25)),
                In::Data(ramp(&[1, 8, 2], 5, 0.25)),
            ],
            &[
                f32s(
                    &[3, 1, 2, 2],
                    &[
                        0.349128, -0.236794, 0.136429, -0.481497, 0.0340175, -0.0627713, -0.0143603, -0.200364,
                        0.279341, -0.348528, -0.204395, -0.0161827,
                    ],
                ),
                f32s(&[1, 2, 2], &[0.279341, -0.348528, -0.204395, -0.0161827]),
                f32s(&[1, 2, 2], &[0.418245, -0.629632, -0.32196, -0.0925375]),
            ],
            TOLERANCE,
        );
        near(
            "peepholes, states and lengths",
            "LSTM",
            &[("hidden_size", Int(2))],
            &[
                In::Data(ramp(&[3, 2, 2], 7, 0.25)),
                In::Data(ramp(&[1, 8, 2], 3, 0.25)),
                In::Data(ramp(&[1, 8, 2], 5, 0.25)),
                In::Data(ramp(&[1, 16], 4, 0.125)),
                In::Data(array(DType::Int32, &[2], &[2.0, 3.0])),
                In::Data(ramp(&[1, 2, 2], 2, 0.125)),
                In::Data(ramp(&[1, 2, 2], 9, 0.125)),
                In::Data(ramp(&[1, 6], 8, 0.125)),
            ],
            &[
                f32s(
                    &[3, 1, 2, 2],
                    &[
                        -0.555953,
                        -0.0216196,
                        0.0397628,
                        -0.286433,
                        -0.355234,
                        0.00305437,
                        -0.0772834,
                        -0.0804017,
                        0.0,
                        0.0,
                        -0.463519,
                        -0.00383838,
                    ],
                ),
                f32s(&[1, 2, 2], &[-0.355234, 0.00305437, -0.463519, -0.00383838]),
                f32s(&[1, 2, 2], &[-0.875892, 0.0351415, -0.70928, -0.0661381]),
            ],
            TOLERANCE,
        );
        near(
            "clipped, coupled gates, both directions",
            "LSTM",
            &[
                ("hidden_size", Int(2)),
                ("clip", Float(0.4)),
                ("input_forget", Int(1)),
                ("direction", Str("bidirectional".into())),
            ],
            &[
                In::Data(ramp(&[3, 2, 2], 7, 0.25)),
                In::Data(ramp(&[2, 8, 2], 3, 0.25)),
                In::Data(ramp(&[2, 8, 2], 5, 0.25)),
                In::Data(ramp(&[2, 16], 4, 0.125)),
                In::Absent,
                In::Data(ramp(&[2, 2, 2], 2, 0.125)),
            ],
            &[
                f32s(
                    &[3, 2, 2, 2],
                    &[
                        -0.133883, -0.0607215, -0.0498968, -0.111813, -0.0266141, 0.0210133, 0.164764, -0.0551799,
                        -0.181192, 0.0245263, -0.0816622, 0.0208822, -0.0661808, -0.115884, 0.0749609, -0.128532,
                        -0.128782, -0.0587763, -0.179178, 0.072887, 0.0871617, -0.0149936, -0.090205, -0.0553201,
                    ],
                ),
                f32s(
                    &[2, 2, 2],
                    &[-0.128782, -0.0587763, -0.179178, 0.072887, -0.0266141, 0.0210133, 0.164764, -0.0551799],
                ),
                f32s(
                    &[2, 2, 2],
                    &[-0.21852, -0.147521, -0.308733, 0.183659, -0.0444834, 0.0351134, 0.282492, -0.0924305],
                ),
            ],
            TOLERANCE,
        );
    }
}
