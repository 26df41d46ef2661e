//! The equation of Einsum.

use crate::error::{Error, Kind, Result};
use crate::tensor::{Dim, Shape, show};

/// An index of an equation: a letter, or an axis that an ellipsis stands for, counted from its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Label {
    Ellipsis(usize),
    Letter(char),
}

/// An equation over operands of known rank: the labels of each operand's axes, those of the output, and the sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equation {
    pub operands: Vec<Vec<Label>>,
    pub output: Vec<Label>,
    /// Every label in order of first appearance, with its size.
    pub sizes: Vec<(Label, Dim)>,
}

impl Equation {
    /// Reads an equation (`"bij,bjk->bik"`, `"...ii->...i"`, `"ij,jk"`) for operands of these shapes.
    pub fn new(text: &str, shapes: &[&Shape]) -> Result<Self> {
        let bad = |what: &str| Error::new(Kind::InvalidModel, format!("equation \"{text}\": {what}"));
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = match text.split_once("->") {
            Some((l, r)) => (l, Some(r)),
            None => (&text[..], None),
        };
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != shapes.len() {
            return Err(bad(&format!("{} terms for {} inputs", terms.len(), shapes.len())));
        }
        let mut operands = vec![];
        let mut widest = None;
        for (term, shape) in terms.iter().zip(shapes) {
            let letters = term.chars().filter(|c| c.is_ascii_alphabetic()).count();
            let dots = term.contains("...");
            let hidden = shape.len().checked_sub(letters).filter(|n| dots || *n == 0);
            let Some(hidden) = hidden else {
                return Err(bad(&format!("term \"{term}\" for an input of shape {}", show(shape))));
            };
            operands.push(labels(term, hidden).ok_or_else(|| bad("it does not parse"))?);
            if dots {
                widest = widest.max(Some(hidden));
            }
        }
        let output = match right {
            Some(r) => {
                if r.contains("...") && widest.is_none() {
                    return Err(bad("an ellipsis stands only in the output"));
                }
                labels(r, widest.unwrap_or(0)).ok_or_else(|| bad("it does not parse"))?
            }
            None => {
                let all: Vec<Label> = operands.concat();
                let once = |l: &&Label| matches!(l, Label::Letter(_)) && all.iter().filter(|x| x == l).count() == 1;
                let mut letters: Vec<Label> = all.iter().filter(once).copied().collect();
                letters.sort_unstable();
                (0..widest.unwrap_or(0)).rev().map(Label::Ellipsis).chain(letters).collect()
            }
        };
        let mut sizes: Vec<(Label, Dim)> = vec![];
        for (labels, shape) in operands.iter().zip(shapes) {
            for (label, dim) in labels.iter().zip(shape.iter()) {
                match sizes.iter_mut().find(|(l, _)| l == label) {
                    None => sizes.push((*label, dim.clone())),
                    Some((_, known)) if known == dim || dim.is(1) => {}
                    Some((_, known)) if known.is(1) => *known = dim.clone(),
                    Some((_, known)) => {
                        return Err(Error::new(
                            Kind::InvalidShape,
                            format!("equation \"{text}\": one index has sizes {known} and {dim}"),
                        ));
                    }
                }
            }
        }
        for (i, l) in output.iter().enumerate() {
            if output[..i].contains(l) || !sizes.iter().any(|(x, _)| x == l) {
                return Err(bad("an index of the output stands twice or in no input"));
            }
        }
        Ok(Equation { operands, output, sizes })
    }

    /// The size of a label.
    pub fn size(&self, label: Label) -> Dim {
        self.sizes.iter().find(|(l, _)| *l == label).map_or(Dim::from(1), |(_, d)| d.clone())
    }

    /// The labels that are summed over: those of the inputs that the output lacks.
    pub fn summed(&self) -> Vec<Label> {
        self.sizes.iter().map(|(l, _)| *l).filter(|l| !self.output.contains(l)).collect()
    }
}

fn labels(term: &str, hidden: usize) -> Option<Vec<Label>> {
    let dots = |_| (0..hidden).rev().map(Label::Ellipsis);
    let letters = |s: &str| {
        s.chars().map(|c| c.is_ascii_alphabetic().then_some(Label::Letter(c))).collect::<Option<Vec<Label>>>()
    };
    match term.split_once("...") {
        Some((a, b)) => Some(letters(a)?.into_iter().chain(dots(())).chain(letters(b)?).collect()),
        None => letters(term),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(dims: &[i64]) -> Shape {
        dims.iter().map(|d| Dim::from(*d)).collect()
    }

    #[test]
    fn equations() {
        let cases: [(&str, &[&[i64]], Result<&[i64], Kind>); 8] = [
            ("bij, bjk -> bik", &[&[2, 3, 4], &[2, 4, 5]], Ok(&[2, 3, 5])),
            ("...ii ->...i", &[&[3, 5, 5]], Ok(&[3, 5])),
            ("ij,jk", &[&[2, 3], &[3, 4]], Ok(&[2, 4])),
            ("ba", &[&[2, 3]], Ok(&[3, 2])),
            ("...ij,...jk->...ik", &[&[7, 1, 2, 3], &[6, 3, 4]], Ok(&[7, 6, 2, 4])),
            ("i->", &[&[5]], Ok(&[])),
            ("ij->k", &[&[2, 3]], Err(Kind::InvalidModel)),
            ("i,i->i", &[&[2], &[3]], Err(Kind::InvalidShape)),
        ];
        for (text, shapes, want) in cases {
            let shapes: Vec<Shape> = shapes.iter().map(|s| shape(s)).collect();
            let got = Equation::new(text, &shapes.iter().collect::<Vec<_>>());
            let got = got.map(|e| e.output.iter().map(|l| e.size(*l)).collect::<Shape>()).map_err(|e| e.kind());
            assert_eq!(got, want.map(shape), "{text}");
        }
    }
}
