//! MurmurHash3, x64, the first 64 of its 128 bits with seed 0: what UnixFS sorts names into shards by.

/// Big-endian, so that the first bits of the digest are the highest ones here.
pub(super) fn hash(name: &[u8]) -> u64 {
    let (mut h1, mut h2) = (0_u64, 0_u64);
    let (whole, tail) = name.as_chunks::<16>();
    for chunk in whole {
        let (k1, k2) = halves(chunk);
        h1 ^= mix_first(k1);
        h1 = h1.rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 ^= mix_second(k2);
        h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    // The tail padded with zeros mixes to the same, as zero mixes to zero.
    let mut last = [0; 16];
    for (to, from) in last.iter_mut().zip(tail) {
        *to = *from;
    }
    let (k1, k2) = halves(&last);
    h1 ^= mix_first(k1) ^ name.len() as u64;
    h2 ^= mix_second(k2) ^ name.len() as u64;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    finish(h1).wrapping_add(finish(h2))
}

const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;

fn halves(chunk: &[u8; 16]) -> (u64, u64) {
    let both = u128::from_le_bytes(*chunk);
    (both as u64, (both >> 64) as u64)
}

fn mix_first(k: u64) -> u64 {
    k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2)
}

fn mix_second(k: u64) -> u64 {
    k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1)
}

fn finish(mut k: u64) -> u64 {
    k = (k ^ k >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    k = (k ^ k >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ k >> 33
}

#[cfg(test)]
mod tests {
    use super::hash;

    #[test]
    fn known_digests() {
        assert_eq!(hash(b""), 0);
        assert_eq!(hash(b"hello"), 0xcbd8_a7b3_41bd_9b02);
        assert_eq!(hash(b"hello, world"), 0x342f_ac62_3a5e_bc8e);
        assert_eq!(hash(b"The quick brown fox jumps over the lazy dog."), 0xcd99_481f_9ee9_02c9);
    }
}
