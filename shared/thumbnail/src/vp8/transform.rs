//! From coefficients to differences (RFC 6386, section 14). Numbers have 16 bits, which is enough for what encoders write;
//! others wrap.

use super::tokens::Block;

/// The transform of the 16 means of luma (section 14.3): each goes to its block.
pub(crate) fn means(block: &Block, into: &mut [Block]) {
    let mut rows = [[0_i32; 4]; 4];
    for x in 0..4 {
        let of = |y: usize| i32::from(block[4 * y + x]);
        let (outer, inner) = (of(0) + of(3), of(1) + of(2));
        let (outer_less, inner_less) = (of(0) - of(3), of(1) - of(2));
        rows[0][x] = outer + inner;
        rows[1][x] = inner_less + outer_less;
        rows[2][x] = outer - inner;
        rows[3][x] = outer_less - inner_less;
    }
    for (row, blocks) in rows.iter().zip(into.chunks_exact_mut(4)) {
        let (outer, inner) = (row[0] + row[3], row[1] + row[2]);
        let (outer_less, inner_less) = (row[0] - row[3], row[1] - row[2]);
        let all = [outer + inner, inner_less + outer_less, outer - inner, outer_less - inner_less];
        for (block, mean) in blocks.iter_mut().zip(all) {
            block[0] = ((mean + 3) >> 3) as i16;
        }
    }
}

/// The difference of a block that has a mean only.
#[inline(always)]
pub(crate) fn flat(mean: i16) -> i16 {
    mean.wrapping_add(4) >> 3
}

type Row = [i16; 4];

#[inline(always)]
fn sum(one: Row, other: Row) -> Row {
    std::array::from_fn(|at| one[at].wrapping_add(other[at]))
}

#[inline(always)]
fn difference(one: Row, other: Row) -> Row {
    std::array::from_fn(|at| one[at].wrapping_sub(other[at]))
}

/// The upper 16 bits of the products.
#[inline(always)]
fn upper(row: Row, factor: i32) -> Row {
    std::array::from_fn(|at| ((i32::from(row[at]) * factor) >> 16) as i16)
}

/// Times √2 · cos(π/8), which is 1 + 20,091 ÷ 65,536.
#[inline(always)]
fn cosine(row: Row) -> Row {
    sum(row, upper(row, 20_091))
}

/// Times √2 · sin(π/8), which is 35,468 ÷ 65,536.
#[inline(always)]
fn sine(row: Row) -> Row {
    sum(row, upper(row, 35_468 - 65_536))
}

/// One direction: each row is what the columns have at that place.
#[inline(always)]
fn pass([first, second, third, fourth]: [Row; 4]) -> [Row; 4] {
    let (even, even_less) = (sum(first, third), difference(first, third));
    let odd = sum(cosine(second), sine(fourth));
    let odd_less = difference(sine(second), cosine(fourth));
    [sum(even, odd), sum(even_less, odd_less), difference(even_less, odd_less), difference(even, odd)]
}

#[inline(always)]
fn turned(rows: [Row; 4]) -> [Row; 4] {
    std::array::from_fn(|y| std::array::from_fn(|x| rows[x][y]))
}

/// The differences of a block, row by row.
#[inline(always)]
pub(crate) fn inverse(block: &Block) -> [Row; 4] {
    let rows = std::array::from_fn(|y| std::array::from_fn(|x| block[4 * y + x]));
    let mut columns = turned(pass(rows));
    columns[0] = sum(columns[0], [4; 4]);
    let rows = turned(pass(columns));
    std::array::from_fn(|y| std::array::from_fn(|x| rows[y][x] >> 3))
}
