//! Numbers in the text of shaders. Extents, strides and float constants are marked, so that kernels that differ in them
//! only share one shader: it reads those that differ from a uniform, and has the others as literals.

use std::collections::HashMap;

/// Stands before and behind a marked number. WGSL has no use for it.
const MARK: char = '#';

/// Stands before the bits of a marked float.
const FLOAT: char = 'f';

/// The number as text that may become a parameter.
pub(super) fn marked(n: i64) -> String {
    // What does not fit the uniform's type is an error of the shader, and is to be seen there.
    if i32::try_from(n).is_ok() { format!("{MARK}{n}{MARK}") } else { n.to_string() }
}

/// The normal float or zero as text that may become a parameter.
pub(super) fn marked_float(x: f32) -> String {
    format!("{MARK}{FLOAT}{}{MARK}", x.to_bits().cast_signed())
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

/// A marked number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Int(i32),
    /// The bits of an f32.
    Float(i32),
}

impl Number {
    fn parse(text: &str) -> Number {
        let (float, digits) = text.strip_prefix(FLOAT).map_or((false, text), |rest| (true, rest));
        let n = digits.parse().unwrap_or_default();
        if float { Number::Float(n) } else { Number::Int(n) }
    }

    /// As the uniform holds it.
    fn bits(self) -> i32 {
        match self {
            Number::Int(n) | Number::Float(n) => n,
        }
    }

    fn literal(self) -> String {
        match self {
            Number::Int(n) => n.to_string(),
            Number::Float(bits) => {
                let x = f32::from_bits(bits.cast_unsigned());
                // Written with a suffix: it is of type f32 in every context.
                // The shortest decimal of the largest float is a little more than it, which Tint refuses.
                let text = if x.abs() == f32::MAX { format!("{:?}f", f64::from(x)) } else { format!("{x:?}f") };
                if x < 0.0 { format!("({text})") } else { text }
            }
        }
    }
}

/// The text of a shader around its marked numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// Declarations, up to the opening brace of `main`.
    head: String,
    /// What stands between the numbers: one more than there are numbers.
    pieces: Vec<String>,
    numbers: Vec<Number>,
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
                numbers.push(Number::parse(part));
            }
        }
        Code { head, pieces, numbers, binding }
    }

    /// The shader with all numbers as literals.
    pub fn literal(&self) -> String {
        self.text(&self.numbers.iter().map(|n| n.literal()).collect::<Vec<_>>(), &[])
    }

    /// The kinds of its numbers, by whether they are floats.
    fn floats(&self) -> Vec<bool> {
        self.numbers.iter().map(|n| matches!(n, Number::Float(_))).collect()
    }

    /// The shader with these texts for its numbers; each of `parameters` is read from the uniform, as a float or not.
    fn text(&self, numbers: &[String], parameters: &[bool]) -> String {
        let mut out = String::new();
        let count = parameters.len();
        if count > 0 {
            let (binding, vectors) = (self.binding, count.div_ceil(4));
            out.push_str(&format!(
                "@group(0) @binding({binding}) var<uniform> numbers: array<vec4<i32>, {vectors}>;\n"
            ));
        }
        out.push_str(&self.head);
        for (i, float) in parameters.iter().enumerate() {
            let part = format!("numbers[{}].{}", i / 4, ["x", "y", "z", "w"][i % 4]);
            let value = if *float { format!("bitcast<f32>({part})") } else { part };
            out.push_str(&format!("  let num{i} = {value};\n"));
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
    let mut known: HashMap<(&str, &[String], Vec<bool>, usize), usize> = HashMap::new();
    for (i, code) in codes.iter().enumerate() {
        let group = *known.entry((&code.head, &code.pieces, code.floats(), code.binding)).or_insert_with(|| {
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
    let mut parameters: Vec<Vec<Number>> = vec![];
    let mut texts = vec![];
    for (i, n) in first.numbers.iter().enumerate() {
        let values: Vec<Number> = group.iter().map(|k| codes[*k].numbers[i]).collect();
        if values.iter().all(|v| v == n) {
            texts.push(n.literal());
            continue;
        }
        let at = parameters.iter().position(|p| *p == values).unwrap_or_else(|| {
            parameters.push(values);
            parameters.len() - 1
        });
        texts.push(format!("num{at}"));
    }
    let floats: Vec<bool> = parameters.iter().map(|p| matches!(p[0], Number::Float(_))).collect();
    let wgsl = first.text(&texts, &floats);
    let users = group.iter().enumerate().map(|(u, k)| (*k, parameters.iter().map(|p| p[u].bits()).collect())).collect();
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
    fn floats_are_parameters_too() {
        let text = |x: f32, y: f32| format!("  let t = {} * {};\n}}\n", marked_float(x), marked_float(y));
        let (a, b) = (code(&text(0.5, 2.0)), code(&text(-0.25, 2.0)));
        let all = share(&[&a, &b]);
        assert_eq!(
            all[0].wgsl,
            "@group(0) @binding(2) var<uniform> numbers: array<vec4<i32>, 1>;\nfn main() {\n  let num0 = \
             bitcast<f32>(numbers[0].x);\n  let t = num0 * 2.0f;\n}\n"
        );
        assert_eq!(all[0].users[1].1, [(-0.25f32).to_bits().cast_signed()]);
        assert_eq!(b.literal(), "fn main() {\n  let t = (-0.25f) * 2.0f;\n}\n");
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
