//! Control flow becomes data flow where that is possible: loops whose number of turns is known are written out turn by turn,
//! and both branches of an If are computed and one is selected. Both targets run the result, in one dispatch list.

use super::edit::{Adder, insert, replace};
use super::inline::splice;
use crate::error::{Error, Kind, Result};
use crate::graph::infer::control::{decided, free};
use crate::graph::{AttrValue, Graph, Node, Value, ValueId};
use crate::tensor::{Array, DType};
use std::collections::HashMap;

/// A loop is written out only while that makes at most as many nodes.
const MOST: usize = 1 << 12;

/// Writes out each Loop and Scan whose number of turns is known. Returns whether there was one. Types need only be known as
/// far as inference came: a body often becomes typed when its turns are numbered.
pub fn unroll(g: &mut Graph) -> Result<bool> {
    let mut any = false;
    let mut at = 0;
    while at < g.nodes.len() {
        let node = &g.nodes[at];
        let plan = match node.op.name {
            "Loop" => loop_plan(g, node),
            "Scan" => scan_plan(g, node),
            _ => None,
        };
        let Some(plan) = plan else {
            at += 1;
            continue;
        };
        let node = g.nodes.remove(at);
        let mut add = Adder::new(g, &node.name);
        let results = match node.op.name {
            "Loop" => write_loop(&mut add, &node, &plan)?,
            _ => write_scan(&mut add, &node, &plan)?,
        };
        let new = add.nodes;
        let pairs = node.outputs.iter().zip(results).filter_map(|(out, from)| Some(((*out)?, from))).collect();
        insert(g, vec![(at, new)]);
        replace(g, &pairs);
        any = true;
    }
    Ok(any)
}

/// How a loop is written out.
struct Turns {
    count: usize,
    body: Graph,
    /// Whether every turn runs: then no state needs to be selected.
    always: bool,
}

fn fits(count: usize, body: &Graph) -> bool {
    count.checked_mul(body.nodes.len() + 4).is_some_and(|n| n <= MOST)
}

fn loop_plan(g: &Graph, node: &Node) -> Option<Turns> {
    let input = |i: usize| node.inputs.get(i).copied().flatten();
    let body = node.bodies.iter().find(|(n, _)| n == "body").map(|(_, b)| b)?;
    let states = node.inputs.len().checked_sub(2)?;
    if body.inputs.len() != states + 2 || body.outputs.len() <= states {
        return None;
    }
    let count = g.value(input(0)?).constant.as_ref()?.to_i64()?.first().copied()?;
    let count = usize::try_from(count.max(0)).ok().filter(|n| fits(*n, body))?;
    let begins = input(1).is_none_or(|c| decided(g.value(c).constant.as_ref()) == Some(true));
    let mut goes_on = body.outputs.first().map(|(_, v)| *v);
    while let Some(n) = body.nodes.iter().find(|n| n.op.name == "Identity" && n.outputs.first() == Some(&goes_on)) {
        goes_on = n.inputs.first().copied().flatten();
    }
    let goes_on = goes_on?;
    let always = begins
        && (body.inputs.get(1) == Some(&goes_on) || decided(body.value(goes_on).constant.as_ref()) == Some(true));
    // How many rows there are then depends on data.
    let rows = body.outputs.len() > states + 1;
    (!rows || (always && count > 0)).then(|| Turns { count, body: body.clone(), always })
}

fn scan_plan(g: &Graph, node: &Node) -> Option<Turns> {
    let body = node.bodies.iter().find(|(n, _)| n == "body").map(|(_, b)| b)?;
    let sequences = usize::try_from(node.attrs.int("num_scan_inputs").ok()?).ok()?;
    let states = node.inputs.len().checked_sub(sequences).filter(|_| sequences > 0)?;
    let first = node.inputs.get(states).copied().flatten()?;
    let shape = g.value(first).shape.as_ref()?;
    let axes = node.attrs.ints("scan_input_axes").ok()?;
    let axis = axes.and_then(|a| a.first().copied()).unwrap_or(0);
    let axis = crate::graph::ops::rules::axis(axis, shape.len()).ok()?;
    let count = usize::try_from(shape[axis].known()?).ok().filter(|n| *n > 0 && fits(*n, body))?;
    let whole = body.inputs.len() == node.inputs.len() && body.outputs.len() >= states;
    whole.then(|| Turns { count, body: body.clone(), always: true })
}

fn truth(add: &mut Adder<'_>, what: &str, is: bool) -> Result<ValueId> {
    let array = Array::new(DType::Bool, vec![], vec![u8::from(is)])?;
    Ok(add.constant(what, array))
}

/// The inputs of a node from `from` on, which must all be present.
fn all_inputs(node: &Node, from: usize) -> Result<Vec<ValueId>> {
    let absent = || Error::new(Kind::InvalidModel, format!("{} lacks an input", node.op.name)).at(&node.name);
    node.inputs.get(from..).unwrap_or_default().iter().map(|v| v.ok_or_else(absent)).collect()
}

fn write_loop(add: &mut Adder<'_>, node: &Node, plan: &Turns) -> Result<Vec<ValueId>> {
    let mut states = all_inputs(node, 2)?;
    let mut rows: Vec<Vec<ValueId>> = vec![vec![]; plan.body.outputs.len() - 1 - states.len()];
    let mut runs = match node.inputs.get(1).copied().flatten() {
        Some(c) => c,
        None => truth(add, "begins", true)?,
    };
    for turn in 0..plan.count {
        let number = Array::from_i64(vec![], &[i64::try_from(turn).unwrap_or(i64::MAX)])?;
        let mut bound = vec![add.constant(&format!("turn{turn}"), number), truth(add, "goes_on", true)?];
        bound.extend(&states);
        let results = instantiate(add, &plan.body, &format!("{}/turn{turn}", add.path), &bound);
        for (i, (state, new)) in states.iter_mut().zip(&results[1..]).enumerate() {
            *state = if plan.always {
                *new
            } else {
                add.op("Where", &format!("state{i}_{turn}"), &[runs, *new, *state], &[])?
            };
        }
        rows.iter_mut().zip(&results[1 + states.len()..]).for_each(|(r, v)| r.push(*v));
        if !plan.always {
            runs = add.op("And", &format!("runs{turn}"), &[runs, results[0]], &[])?;
        }
    }
    for r in rows {
        states.push(stack(add, &r, 0)?);
    }
    Ok(states)
}

fn write_scan(add: &mut Adder<'_>, node: &Node, plan: &Turns) -> Result<Vec<ValueId>> {
    let inputs = all_inputs(node, 0)?;
    let list = |name: &str| node.attrs.ints(name).map(|v| v.unwrap_or_default().to_vec());
    let (in_axes, in_ways) = (list("scan_input_axes")?, list("scan_input_directions")?);
    let (out_axes, out_ways) = (list("scan_output_axes")?, list("scan_output_directions")?);
    let at = |v: &[i64], i: usize| v.get(i).copied().unwrap_or(0);
    let sequences = usize::try_from(node.attrs.int("num_scan_inputs")?).unwrap_or(0);
    let (states, sequences) = inputs.split_at(inputs.len().saturating_sub(sequences));
    let mut states = states.to_vec();
    let mut rows: Vec<Vec<ValueId>> = vec![vec![]; plan.body.outputs.len() - states.len()];
    for turn in 0..plan.count {
        let mut bound = states.clone();
        for (i, x) in sequences.iter().enumerate() {
            let step = if at(&in_ways, i) == 1 { plan.count - 1 - turn } else { turn };
            let step = Array::from_i64(vec![], &[i64::try_from(step).unwrap_or(i64::MAX)])?;
            let step = add.constant("step", step);
            let axis = [("axis", AttrValue::Int(at(&in_axes, i)))];
            bound.push(add.op("Gather", &format!("item{i}_{turn}"), &[*x, step], &axis)?);
        }
        let results = instantiate(add, &plan.body, &format!("{}/turn{turn}", add.path), &bound);
        let kept = states.len();
        states.copy_from_slice(&results[..kept]);
        rows.iter_mut().zip(&results[kept..]).for_each(|(r, v)| r.push(*v));
    }
    for (i, mut r) in rows.into_iter().enumerate() {
        if at(&out_ways, i) == 1 {
            r.reverse();
        }
        states.push(stack(add, &r, at(&out_axes, i))?);
    }
    Ok(states)
}

/// One tensor of tensors of one shape, along a new axis.
fn stack(add: &mut Adder<'_>, items: &[ValueId], axis: i64) -> Result<ValueId> {
    let axes = add.ints("axes", &[axis])?;
    let mut rows = vec![];
    for item in items {
        rows.push(add.op("Unsqueeze", "row", &[*item, axes], &[])?);
    }
    add.op("Concat", "rows", &rows, &[("axis", AttrValue::Int(axis))])
}

/// Adds a copy of a body's nodes. `bound` are the values that its inputs stand for. Returns what its outputs are.
fn instantiate(add: &mut Adder<'_>, body: &Graph, path: &str, bound: &[ValueId]) -> Vec<ValueId> {
    let outer: HashMap<&str, ValueId> =
        (0u32..).map(ValueId).zip(&add.graph.values).map(|(v, value)| (value.name.as_str(), v)).collect();
    let mut places: HashMap<ValueId, ValueId> = HashMap::new();
    for v in free(body) {
        if let Some(o) = outer.get(body.value(v).name.as_str()) {
            places.insert(v, *o);
        }
    }
    places.extend(body.inputs.iter().copied().zip(bound.iter().copied()));
    let own = free(body);
    for (v, value) in (0u32..).map(ValueId).zip(&body.values) {
        places.entry(v).or_insert_with(|| {
            let name = format!("{path}/{}", value.name);
            let constant = value.constant.clone().filter(|_| own.contains(&v));
            // What was inferred of computed values may hold in one turn and not in another.
            let kept = if constant.is_some() { value.clone() } else { Value::default() };
            add.graph.add_value(Value { name, constant, ..kept })
        });
    }
    let names: HashMap<String, String> = (0u32..)
        .map(ValueId)
        .zip(&body.values)
        .map(|(v, value)| (value.name.clone(), add.graph.value(places[&v]).name.clone()))
        .collect();
    let at = |v: &mut ValueId| *v = places.get(v).copied().unwrap_or(*v);
    for node in &body.nodes {
        let mut node = node.clone();
        node.name = format!("{path}/{}", node.name);
        node.inputs.iter_mut().chain(&mut node.outputs).flatten().for_each(at);
        node.bodies.iter_mut().for_each(|(_, inner)| rename_all(inner, &names, path));
        add.nodes.push(node);
    }
    let mut results: Vec<ValueId> = body.outputs.iter().map(|(_, v)| *v).collect();
    results.iter_mut().for_each(at);
    results
}

/// Renames the values of a nested body: those of the enclosing body as there, its own under the path, so that names stay
/// unique in every copy.
fn rename_all(body: &mut Graph, names: &HashMap<String, String>, path: &str) {
    let outside: Vec<ValueId> = free(body).into_iter().filter(|v| body.value(*v).constant.is_none()).collect();
    let mut inner = names.clone();
    for (v, value) in (0u32..).map(ValueId).zip(&mut body.values) {
        let new = match names.get(&value.name) {
            Some(new) => new.clone(),
            None if outside.contains(&v) => continue,
            None => format!("{path}/{}", value.name),
        };
        inner.insert(std::mem::replace(&mut value.name, new.clone()), new);
        if value.constant.is_none() {
            (value.dtype, value.shape, value.content) = (None, None, None);
        }
    }
    for node in &mut body.nodes {
        node.bodies.iter_mut().for_each(|(_, b)| rename_all(b, &inner, path));
    }
}

/// Computes both branches of each If and selects. Types must have been inferred: they are the same in both. Returns whether
/// there was one.
pub fn select_ifs(g: &mut Graph) -> Result<bool> {
    let mut any = false;
    for mut node in std::mem::take(&mut g.nodes) {
        let condition = node.inputs.first().copied().flatten();
        let branch = |node: &mut Node, name: &str| {
            let at = node.bodies.iter().position(|(n, _)| n == name);
            at.map(|at| node.bodies.swap_remove(at).1)
        };
        let (true, Some(condition)) = (node.op.name == "If", condition) else {
            g.nodes.push(node);
            continue;
        };
        let (Some(then), Some(other)) = (branch(&mut node, "then_branch"), branch(&mut node, "else_branch")) else {
            return Err(Error::new(Kind::Internal, "an If has lost a branch").at(&node.name));
        };
        any = true;
        let (yes, no) = (splice(g, then), splice(g, other));
        let mut add = Adder::new(g, &node.name);
        let scalar = add.ints("scalar", &[])?;
        let condition = add.op("Reshape", "condition", &[condition, scalar], &[])?;
        for (i, out) in node.outputs.iter().enumerate() {
            let (Some(out), Some(a), Some(b)) = (*out, yes.get(i), no.get(i)) else { continue };
            add.node("Where", &format!("select{i}"), &[condition, *a, *b], &[], vec![Some(out)])?;
        }
        let new = add.nodes;
        g.nodes.extend(new);
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::passes::required;
    use crate::graph::testing::{graph, untyped};

    /// The last node of `outer` gets `body` under that name.
    fn with_body(outer: &str, bodies: &[(&str, &str)]) -> Graph {
        let mut g = untyped(outer);
        let node = g.nodes.last_mut().unwrap();
        node.bodies = bodies.iter().map(|(name, text)| ((*name).to_owned(), untyped(text))).collect();
        g
    }

    #[test]
    fn selects_between_branches() {
        let mut g = with_body(
            "input x: float32[n]
             input c: bool[]
             y = If(c)
             output y",
            &[("then_branch", "a = Relu(x)\noutput a"), ("else_branch", "b = Neg(x)\noutput b")],
        );
        required(&mut g).unwrap();
        insta::assert_snapshot!(g.to_string(), @r#"
input x: float32[n]
input c: bool[]
a: float32[n] = Relu(x)
b: float32[n] = Neg(x)
y:condition: bool[] = Reshape(c, y:scalar int64[0] []) {allowzero=0}
y: float32[n] = Where(y:condition, a, b)
output y
"#);
    }

    #[test]
    fn writes_out_a_loop() {
        let mut g = with_body(
            "input x: float32[n]
             count = int64[] [2]
             go = bool[] [1]
             y, rows = Loop(count, go, x)
             output y
             output rows",
            &[(
                "body",
                "input i: int64[]
                 input c: bool[]
                 input s: float32[n]
                 d = Identity(c)
                 f = Cast(i) {to=1}
                 t = Mul(s, f)
                 r = Add(t, x)
                 output d
                 output t
                 output r",
            )],
        );
        required(&mut g).unwrap();
        insta::assert_snapshot!(g.to_string(), @r#"
input x: float32[n]
y/turn0/t: float32[n] = Mul(x, y/turn0/f)
y/turn0/r: float32[n] = Add(y/turn0/t, x)
y/turn1/t: float32[n] = Mul(y/turn0/t, y/turn1/f)
y/turn1/r: float32[n] = Add(y/turn1/t, x)
y:row: float32[1, n] = Unsqueeze(y/turn0/r, y:axes int64[1] [0])
y:row_1: float32[1, n] = Unsqueeze(y/turn1/r, y:axes int64[1] [0])
y:rows: float32[2, n] = Concat(y:row, y:row_1) {axis=0}
output y = y/turn1/t
output rows = y:rows
"#);
    }

    #[test]
    fn stops_a_loop_by_its_condition() {
        let mut g = with_body(
            "input x: float32[n]
             input go: bool[]
             count = int64[] [2]
             y = Loop(count, go, x)
             output y",
            &[(
                "body",
                "input i: int64[]
                 input c: bool[]
                 input s: float32[n]
                 zero = int64[] [0]
                 d = Greater(zero, i)
                 t = Add(s, x)
                 output d
                 output t",
            )],
        );
        required(&mut g).unwrap();
        insta::assert_snapshot!(g.to_string(), @r#"
input x: float32[n]
input go: bool[]
y/turn0/t: float32[n] = Add(x, x)
y:state0_0: float32[n] = Where(go, y/turn0/t, x)
y:runs0: bool[] = And(go, y/turn0/d)
y/turn1/t: float32[n] = Add(y:state0_0, x)
y:state0_1: float32[n] = Where(y:runs0, y/turn1/t, y:state0_0)
output y = y:state0_1
"#);
    }

    #[test]
    fn writes_out_a_scan() {
        let mut g = with_body(
            "input s: float32[2]
             input x: float32[2, 3]
             z, rows = Scan(s, x) {num_scan_inputs=1, scan_input_axes=[1], scan_output_directions=[1]}
             output z
             output rows",
            &[(
                "body",
                "input a: float32[2]
                 input b: float32[2]
                 c = Add(a, b)
                 output c
                 output o = c",
            )],
        );
        required(&mut g).unwrap();
        insta::assert_snapshot!(g.to_string(), @r#"
input s: float32[2]
input x: float32[2, 3]
z:item0_0: float32[2] = Gather(x, z:step int64[] [0]) {axis=1}
z/turn0/c: float32[2] = Add(s, z:item0_0)
z:item0_1: float32[2] = Gather(x, z:step_1 int64[] [1]) {axis=1}
z/turn1/c: float32[2] = Add(z/turn0/c, z:item0_1)
z:item0_2: float32[2] = Gather(x, z:step_2 int64[] [2]) {axis=1}
z/turn2/c: float32[2] = Add(z/turn1/c, z:item0_2)
z:row: float32[1, 2] = Unsqueeze(z/turn2/c, z:axes int64[1] [0])
z:row_1: float32[1, 2] = Unsqueeze(z/turn1/c, z:axes int64[1] [0])
z:row_2: float32[1, 2] = Unsqueeze(z/turn0/c, z:axes int64[1] [0])
z:rows: float32[3, 2] = Concat(z:row, z:row_1, z:row_2) {axis=0}
output z = z/turn2/c
output rows = z:rows
"#);
    }

    #[test]
    fn keeps_a_loop_of_unknown_length() {
        let text = "input x: float32[n]
             input count: int64[]
             y = Relu(x)
             output y";
        let mut g = graph(text);
        assert_eq!(unroll(&mut g), Ok(false));
    }
}
