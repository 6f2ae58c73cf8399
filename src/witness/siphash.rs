//! SipHash-2-4 with a tag of 128 bits: a keyed hash for short messages (Aumasson and Bernstein, "SipHash: a fast
//! short-input PRF", 2012; the long tag is that of the authors' reference code).
//!
//! Written here because it is sixty lines, and a datagram is 48 bytes. HMAC-SHA-256 from `ring` would tie the
//! guard to the crate that only TLS needs, and builds without TLS have none. The crate `siphasher` has the same
//! function among many that are not needed.

/// A key of 128 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u8; 16]);

impl Key {
    /// Its 32 hexadecimal digits.
    pub fn hex(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }

    /// Reads what [`Key::hex`] wrote.
    pub fn read_hex(text: &str) -> Option<Key> {
        let is_plain = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let key = is_plain.then(|| u128::from_str_radix(text, 16).ok())??;
        Some(Key(key.to_be_bytes()))
    }
}

impl std::fmt::Debug for Key {
    /// A key is a secret: it must not reach a log by accident.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// A tag of 128 bits. Compared in constant time.
#[derive(Clone, Copy, Debug)]
pub struct Tag(pub [u8; 16]);

impl PartialEq for Tag {
    fn eq(&self, other: &Tag) -> bool {
        let differing = self.0.iter().zip(other.0);
        differing.fold(0, |all, (one, two)| all | (one ^ two)) == 0
    }
}

impl Eq for Tag {}

/// The tag of `message` under `key`.
pub fn tag(key: &Key, message: &[u8]) -> Tag {
    let mut state = State::new(key);
    let blocks = message.chunks_exact(8);
    let rest = blocks.remainder();
    for block in blocks {
        state.absorb(word(block));
    }
    // The last word holds the rest of the message, and the length modulo 256 in its highest byte.
    state.absorb(word(rest) | (message.len() as u64) << 56);
    state.v2 ^= 0xee;
    let first = state.squeeze();
    state.v1 ^= 0xdd;
    let second = state.squeeze();
    let mut tag = [0; 16];
    tag[..8].copy_from_slice(&first.to_le_bytes());
    tag[8..].copy_from_slice(&second.to_le_bytes());
    Tag(tag)
}

/// Up to eight bytes, the first one lowest.
fn word(bytes: &[u8]) -> u64 {
    let bytes = bytes.iter().rev();
    bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
}

struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    fn new(key: &Key) -> State {
        let (k0, k1) = (word(&key.0[..8]), word(&key.0[8..]));
        State {
            v0: k0 ^ 0x736f_6d65_7073_6575,
            // 0xee marks the long tag.
            v1: k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            v2: k0 ^ 0x6c79_6765_6e65_7261,
            v3: k1 ^ 0x7465_6462_7974_6573,
        }
    }

    fn absorb(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.round();
        self.v0 ^= word;
    }

    fn squeeze(&mut self) -> u64 {
        for _ in 0..4 {
            self.round();
        }
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }

    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v2 = self.v2.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(tag: Tag) -> String {
        tag.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Input: the key 00 01 .. 0f and the messages of the authors' reference code, 00 01 02 .. of each length.
    /// Output: its tags (`vectors_sip128` in vectors.h of github.com/veorq/SipHash).
    #[test]
    fn tags_are_those_of_the_reference() {
        let key = Key(std::array::from_fn(|at| at as u8));
        let message: Vec<u8> = (0..64).collect();
        for (length, expected) in [
            (0, "a3817f04ba25a8e66df67214c7550293"),
            (1, "da87c1d86b99af44347659119b22fc45"),
            (2, "8177228da4a45dc7fca38bdef60affe4"),
            (3, "9c70b60c5267a94e5f33b6b02985ed51"),
            (4, "f88164c12d9c8faf7d0f6e7c7bcd5579"),
            (5, "1368875980776f8854527a07690e9627"),
            (6, "14eeca338b208613485ea0308fd7a15e"),
            (7, "a1f1ebbed8dbc153c0b84aa61ff08239"),
            (8, "3b62a9ba6258f5610f83e264f31497b4"),
            (9, "264499060ad9baabc47f8b02bb6d71ed"),
            (10, "00110dc378146956c95447d3f3d0fbba"),
            (11, "0151c568386b6677a2b4dc6f81e5dc18"),
            (12, "d626b266905ef35882634df68532c125"),
            (13, "9869e247e9c08b10d029934fc4b952f7"),
            (14, "31fcefac66d7de9c7ec7485fe4494902"),
            (15, "5493e99933b0a8117e08ec0f97cfc3d9"),
            (16, "6ee2a4ca67b054bbfd3315bf85230577"),
        ] {
            assert_eq!(hex(tag(&key, &message[..length])), expected, "{length}");
        }
    }

    /// Input: two keys, and messages that differ in a bit or in length. Output: other tags.
    #[test]
    fn tags_depend_on_all_of_it() {
        let (one, two) = (Key([1; 16]), Key([2; 16]));
        let all = [
            tag(&one, &[0; 48]),
            tag(&two, &[0; 48]),
            tag(&one, &[0; 47]),
            tag(&one, &[0; 49]),
            tag(&one, &[1; 48]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all[..at].iter().all(|other| other != one));
        }
    }
}
