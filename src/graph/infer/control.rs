//! Types across the bodies of If, Loop and Scan. Specification: <https://onnx.ai/onnx/operators/onnx__Loop.html>.

use super::{Infer, Type, driver};
use crate::error::{Error, Kind, Result};
use crate::graph::{Graph, ValueId};
use crate::tensor::{Array, Dim, show};
use std::collections::{HashMap, HashSet};

/// The types of the outputs of a node with bodies.
pub(super) fn node(outer: &Graph, op: &str, cx: &Infer<'_>, bodies: &mut [(String, Graph)]) -> Result<Vec<Type>> {
    for (_, body) in bodies.iter_mut() {
        capture(outer, body)?;
    }
    match op {
        "If" => branches(cx, bodies),
        "Loop" => turns(cx, body(bodies, "body")?),
        "Scan" => scan(cx, body(bodies, "body")?),
        _ => Err(Error::new(Kind::UnsupportedOp, format!("{op} with a body is not supported"))),
    }
}

fn body<'a>(bodies: &'a mut [(String, Graph)], name: &str) -> Result<&'a mut Graph> {
    let found = bodies.iter_mut().find(|(n, _)| n == name).map(|(_, g)| g);
    found.ok_or_else(|| Error::new(Kind::InvalidModel, format!("the body \"{name}\" is missing")))
}

/// Values of a body that are neither its inputs nor computed in it: its constants, and values of the graph around it.
pub(crate) fn free(body: &Graph) -> Vec<ValueId> {
    let made = body.nodes.iter().flat_map(|n| n.outputs.iter().flatten());
    let defined: HashSet<ValueId> = body.inputs.iter().chain(made).copied().collect();
    let all = (0u32..).map(ValueId).take(body.values.len());
    all.filter(|v| !defined.contains(v)).collect()
}

/// Gives a body the types of the values that it reads from the graph around it.
fn capture(outer: &Graph, body: &mut Graph) -> Result<()> {
    let by_name: HashMap<&str, usize> = outer.values.iter().enumerate().map(|(i, v)| (v.name.as_str(), i)).collect();
    body.ranges.clone_from(&outer.ranges);
    for v in free(body) {
        let value = body.value_mut(v);
        match by_name.get(value.name.as_str()) {
            Some(i) => *value = outer.values[*i].clone(),
            None if value.constant.is_some() => {}
            None => {
                return Err(Error::new(
                    Kind::InvalidModel,
                    format!("value \"{}\" is used but never computed", value.name),
                ));
            }
        }
    }
    Ok(())
}

/// Sets the type of a body's input.
fn bind(body: &mut Graph, i: usize, t: Type) -> Result<()> {
    let Some(v) = body.inputs.get(i).copied() else {
        return Err(Error::new(Kind::InvalidModel, format!("the body has no input {i}")));
    };
    let value = body.value_mut(v);
    if value.dtype.is_some_and(|d| d != t.dtype) {
        return Err(Error::new(Kind::InvalidModel, format!("input \"{}\" of the body is not {}", value.name, t.dtype)));
    }
    (value.dtype, value.shape) = (Some(t.dtype), Some(t.shape));
    Ok(())
}

/// The types of a body's outputs, once it is inferred.
fn results(body: &Graph) -> Result<Vec<Type>> {
    body.outputs.iter().map(|(_, v)| driver::type_of(body, *v)).collect()
}

/// A condition that is known when the model is built.
pub(crate) fn decided(constant: Option<&Array>) -> Option<bool> {
    constant?.to_i64()?.first().map(|n| *n != 0)
}

/// If: both branches give the same types, or the condition is constant and one of them is never taken.
fn branches(cx: &Infer<'_>, bodies: &mut [(String, Graph)]) -> Result<Vec<Type>> {
    let condition = decided(cx.constants.first().and_then(Option::as_ref));
    let mut taken: Vec<Vec<Type>> = vec![];
    for (name, is) in [("then_branch", true), ("else_branch", false)] {
        let branch = body(bodies, name)?;
        if condition.is_none_or(|c| c == is) {
            driver::infer(branch)?;
            taken.push(results(branch)?);
        }
    }
    let (Some(first), second) = (taken.first(), taken.get(1)) else { return Ok(vec![]) };
    let mut types = first.clone();
    for t in &mut types {
        // The driver follows elements only where they are the same whatever happens at run time.
        t.content = t.content.take().filter(|_| condition.is_some());
    }
    for (i, (a, b)) in first.iter().zip(second.unwrap_or(first)).enumerate() {
        if a.dtype != b.dtype || a.shape != b.shape {
            return Err(Error::new(
                Kind::InvalidShape,
                format!(
                    "output {i} is {}{} in one branch and {}{} in the other",
                    a.dtype,
                    show(&a.shape),
                    b.dtype,
                    show(&b.shape)
                ),
            )
            .help("make the condition constant when exporting the model"));
        }
    }
    Ok(types)
}

/// Checks that a state keeps its type from turn to turn.
fn keeps(i: usize, before: &Type, after: &Type) -> Result<()> {
    if before.dtype == after.dtype && before.shape == after.shape {
        return Ok(());
    }
    Err(Error::new(
        Kind::InvalidShape,
        format!(
            "state {i} of the loop begins as {}{} and is {}{} after a turn",
            before.dtype,
            show(&before.shape),
            after.dtype,
            show(&after.shape)
        ),
    )
    .help("states of loops must keep their shape"))
}

fn with_front(n: Dim, t: &Type) -> Type {
    Type::new(t.dtype, std::iter::once(n).chain(t.shape.iter().cloned()).collect())
}

/// Loop: (count, condition, states) → (states, one row a turn of each further output of the body).
fn turns(cx: &Infer<'_>, body: &mut Graph) -> Result<Vec<Type>> {
    let states: Vec<Type> = (2..cx.inputs.len()).map(|i| cx.input(i).cloned()).collect::<Result<_>>()?;
    bind(body, 0, Type::new(crate::tensor::DType::Int64, vec![]))?;
    bind(body, 1, Type::new(crate::tensor::DType::Bool, vec![]))?;
    for (i, t) in states.iter().enumerate() {
        bind(body, i + 2, Type::new(t.dtype, t.shape.clone()))?;
    }
    driver::infer(body)?;
    let results = results(body)?;
    if results.len() <= states.len() || body.inputs.len() != states.len() + 2 {
        return Err(Error::new(
            Kind::InvalidModel,
            format!(
                "{} states go through a body of {} inputs and {} outputs",
                states.len(),
                body.inputs.len(),
                results.len()
            ),
        ));
    }
    let mut types = vec![];
    for (i, (before, after)) in states.iter().zip(&results[1..]).enumerate() {
        keeps(i, before, after)?;
        types.push(Type::new(after.dtype, after.shape.clone()));
    }
    let rows = &results[1 + states.len()..];
    if !rows.is_empty() {
        let count = turn_count(cx, body)?;
        types.extend(rows.iter().map(|t| with_front(count.clone(), t)));
    }
    Ok(types)
}

/// How often the body of a Loop runs, where only the count decides that.
fn turn_count(cx: &Infer<'_>, body: &Graph) -> Result<Dim> {
    let begins = cx.optional(1).is_none() || decided(cx.constants.get(1).and_then(Option::as_ref)) == Some(true);
    let mut goes_on = body.outputs.first().map(|(_, v)| *v);
    // The condition often goes through an Identity.
    while let Some(n) = body.nodes.iter().find(|n| n.op.name == "Identity" && n.outputs.first() == Some(&goes_on)) {
        goes_on = n.inputs.first().copied().flatten();
    }
    let always = goes_on.is_some()
        && (goes_on == body.inputs.get(1).copied()
            || goes_on.and_then(|v| decided(body.value(v).constant.as_ref())) == Some(true));
    let count = cx.content(0).and_then(|c| c.first().cloned());
    count.filter(|_| begins && always).ok_or_else(|| {
        Error::new(Kind::InvalidShape, "the number of turns of the loop depends on data at run time")
            .help("export the model with a fixed number of turns")
    })
}

/// Scan: (states, sequences) → (states, one row a step of each further output of the body).
fn scan(cx: &Infer<'_>, body: &mut Graph) -> Result<Vec<Type>> {
    let invalid = |what: String| Error::new(Kind::InvalidModel, what);
    let sequences = usize::try_from(cx.attrs.int("num_scan_inputs")?).unwrap_or(usize::MAX);
    let states = cx.inputs.len().checked_sub(sequences).filter(|_| sequences > 0);
    let states = states.ok_or_else(|| invalid(format!("{} inputs, {sequences} sequences", cx.inputs.len())))?;
    let in_axes = cx.attrs.ints("scan_input_axes")?.unwrap_or_default().to_vec();
    let out_axes = cx.attrs.ints("scan_output_axes")?.unwrap_or_default().to_vec();
    for i in 0..states {
        let t = cx.input(i)?;
        bind(body, i, Type::new(t.dtype, t.shape.clone()))?;
    }
    let mut steps: Option<Dim> = None;
    for i in states..cx.inputs.len() {
        let mut t = cx.input(i)?.clone();
        let at = crate::graph::ops::rules::axis(in_axes.get(i - states).copied().unwrap_or(0), t.shape.len())?;
        let n = t.shape.remove(at);
        if let Some(other) = steps.as_ref().filter(|s| **s != n) {
            return Err(Error::new(Kind::InvalidShape, format!("sequences of {other} and of {n} steps")));
        }
        steps = Some(n);
        bind(body, i, Type::new(t.dtype, t.shape))?;
    }
    driver::infer(body)?;
    let results = results(body)?;
    if results.len() < states || body.inputs.len() != cx.inputs.len() {
        return Err(invalid(format!("{} inputs, a body of {}", cx.inputs.len(), body.inputs.len())));
    }
    let mut types = vec![];
    for (i, after) in results.iter().enumerate() {
        if i < states {
            keeps(i, cx.input(i)?, after)?;
            types.push(Type::new(after.dtype, after.shape.clone()));
            continue;
        }
        let mut shape = after.shape.clone();
        let at = out_axes.get(i - states).copied().unwrap_or(0);
        let at = crate::graph::ops::rules::axis(at, shape.len() + 1)?;
        shape.insert(at, steps.clone().unwrap_or_else(|| Dim::from(0)));
        types.push(Type::new(after.dtype, shape));
    }
    Ok(types)
}
