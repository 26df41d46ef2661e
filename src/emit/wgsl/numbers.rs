//! Numbers in the text of shaders. Extents and strides are marked, so that kernels that differ in them only share one
//! shader: it reads those that differ from a uniform, and has the others as literals.

use std::collections::HashMap;

/// Stands before and behind a marked number. WGSL has no use for it.
const MARK: char = '#';

/// The number as text that may become a parameter.
pub(super) fn marked(n: i64) -> String {
    // What does not fit the uniform's type is an error of the shader, and is to be seen there.
    if i32::try_from(n).is_ok() { format!("{MARK}{n}{MARK}") } else { n.to_string() }
}

/// The length of a text, the same for all values of its marked numbers.
pub(super) fn length(text: &str) -> usize {
    text.split(MARK).enumerate().map(|(i, part)| if i % 2 == 0 { part.len() } else { 1 }).sum()
}

/// Whether the text is a single name or number, that costs nothing to repeat.
pub(super) fn is_atom(text: &str) -> bool {
    match text.strip_prefix(MARK).and_then(|t| t.strip_suffix(MARK)) {
        Some(number) => !number.contains(MARK),
        None => text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_'),
    }
}

/// The text of a shader around its marked numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// Declarations, up to the opening brace of `main`.
    head: String,
    /// What stands between the numbers: one more than there are numbers.
    pieces: Vec<String>,
    numbers: Vec<i32>,
    /// The binding that a uniform of numbers would take.
    binding: usize,
}

impl Code {
    pub(super) fn new(head: String, body: &str, binding: usize) -> Code {
        let (mut pieces, mut numbers) = (vec![], vec![]);
        for (i, part) in body.split(MARK).enumerate() {
            if i % 2 == 0 {
                pieces.push(part.to_owned());
            } else {
                numbers.push(part.parse().unwrap_or_default());
            }
        }
        Code { head, pieces, numbers, binding }
    }

    /// The shader with all numbers as literals.
    pub fn literal(&self) -> String {
        self.text(&self.numbers.iter().map(i32::to_string).collect::<Vec<_>>(), 0)
    }

    /// The shader with these texts for its numbers, of which `count` are read from the uniform.
    fn text(&self, numbers: &[String], count: usize) -> String {
        let mut out = String::new();
        if count > 0 {
            let (binding, vectors) = (self.binding, count.div_ceil(4));
            out.push_str(&format!(
                "@group(0) @binding({binding}) var<uniform> numbers: array<vec4<i32>, {vectors}>;\n"
            ));
        }
        out.push_str(&self.head);
        for i in 0..count {
            out.push_str(&format!("  let num{i} = numbers[{}].{};\n", i / 4, ["x", "y", "z", "w"][i % 4]));
        }
        for (i, piece) in self.pieces.iter().enumerate() {
            out.push_str(piece);
            out.push_str(numbers.get(i).map_or("", String::as_str));
        }
        out
    }
}

/// A shader for one or more kernels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    pub wgsl: String,
    /// The kernels by number, and for each the numbers that it wants in the uniform, which is the last binding. Empty
    /// where the shader has no such uniform.
    pub users: Vec<(usize, Vec<i32>)>,
}

/// Makes one shader of those that differ in numbers only, in order of first use.
pub fn share(codes: &[&Code]) -> Vec<Shared> {
    let mut groups: Vec<Vec<usize>> = vec![];
    let mut known: HashMap<(&str, &[String], usize), usize> = HashMap::new();
    for (i, code) in codes.iter().enumerate() {
        let group = *known.entry((&code.head, &code.pieces, code.binding)).or_insert_with(|| {
            groups.push(vec![]);
            groups.len() - 1
        });
        groups[group].push(i);
    }
    groups.iter().map(|group| shared(codes, group)).collect()
}

fn shared(codes: &[&Code], group: &[usize]) -> Shared {
    let first = codes[group[0]];
    // A parameter for each distinct row of values that differ.
    let mut parameters: Vec<Vec<i32>> = vec![];
    let mut texts = vec![];
    for (i, n) in first.numbers.iter().enumerate() {
        let values: Vec<i32> = group.iter().map(|k| codes[*k].numbers[i]).collect();
        if values.iter().all(|v| v == n) {
            texts.push(n.to_string());
            continue;
        }
        let at = parameters.iter().position(|p| *p == values).unwrap_or_else(|| {
            parameters.push(values);
            parameters.len() - 1
        });
        texts.push(format!("num{at}"));
    }
    let wgsl = first.text(&texts, parameters.len());
    let users = group.iter().enumerate().map(|(u, k)| (*k, parameters.iter().map(|p| p[u]).collect())).collect();
    Shared { wgsl, users }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> Code {
        Code::new("fn main() {\n".into(), body, 2)
    }

    #[test]
    fn kernels_that_differ_in_numbers_share_a_shader() {
        let a = code("  let t = x * #3# + #4# * #3# + #1#;\n}\n");
        let b = code("  let t = x * #-5# + #4# * #-5# + #2#;\n}\n");
        let c = code("  let t = x * #3#;\n}\n");
        let all = share(&[&a, &c, &b]);
        assert_eq!(
            all[0].wgsl,
            "@group(0) @binding(2) var<uniform> numbers: array<vec4<i32>, 1>;\nfn main() {\n  let num0 = \
             numbers[0].x;\n  let num1 = numbers[0].y;\n  let t = x * num0 + 4 * num0 + num1;\n}\n"
        );
        assert_eq!(all[0].users, [(0, vec![3, 1]), (2, vec![-5, 2])]);
        assert_eq!(all[1].wgsl, "fn main() {\n  let t = x * 3;\n}\n");
        assert_eq!(all[1].users, [(1, vec![])]);
        assert_eq!(b.literal(), "fn main() {\n  let t = x * -5 + 4 * -5 + 2;\n}\n");
    }

    #[test]
    fn lengths_and_atoms_do_not_depend_on_the_numbers() {
        assert_eq!(length("(a + #7#)"), length("(a + #12345#)"));
        let cases = [("t12", true), ("#7#", true), ("#-7#", true), ("7", true), ("(#7#)", false), ("#7# + #8#", false)];
        for (text, atom) in cases {
            assert_eq!(is_atom(text), atom, "{text}");
        }
    }
}
