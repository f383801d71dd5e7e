//! Seals a name that a caller may not know into a link that it gets: where a list goes on may be in the midst of what
//! it does not show.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use data_encoding::BASE64URL_NOPAD;

use super::StartError;

/// What sealed names begin with; no repository does.
const MARK: char = '~';
/// Longest text that is opened: a name, a nonce and a tag, in base64.
const MAX_SEALED: usize = 512;

/// A key that ends with the process, and links with it.
#[derive(Debug)]
pub(super) struct Seal(RandomizedNonceKey);

impl Seal {
    pub(super) fn new() -> Result<Self, StartError> {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| StartError::Random)?;
        RandomizedNonceKey::new(&AES_256_GCM, &key).map(Self).map_err(|_| StartError::Random)
    }

    pub(super) fn close(&self, name: &str) -> String {
        let mut text = name.as_bytes().to_vec();
        let sealed = match self.0.seal_in_place_append_tag(Aad::empty(), &mut text) {
            Ok(nonce) => [nonce.as_ref().as_slice(), &text].concat(),
            // Without random numbers nothing is sealed, and the link will not open.
            Err(_) => Vec::new(),
        };
        format!("{MARK}{}", BASE64URL_NOPAD.encode(&sealed))
    }

    /// `None` where it is not of this process.
    pub(super) fn open(&self, sealed: &str) -> Option<String> {
        let text = sealed.strip_prefix(MARK).filter(|text| text.len() <= MAX_SEALED)?;
        let sealed = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let name = self.0.open_in_place(nonce, Aad::empty(), &mut text).ok()?;
        String::from_utf8(name.to_vec()).ok()
    }
}

pub(super) fn is_sealed(text: &str) -> bool {
    text.starts_with(MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_name_is_opened_by_its_own_process_alone() {
        let (seal, other) = (Seal::new().unwrap(), Seal::new().unwrap());
        let sealed = seal.close("secret/name");
        assert!(is_sealed(&sealed) && !sealed.contains("secret"));
        assert_eq!(seal.open(&sealed).as_deref(), Some("secret/name"));
        assert_eq!(other.open(&sealed), None);
        for bad in ["", "~", "secret/name", "~AAAA", &sealed[..sealed.len() - 1], &"~A".repeat(1000)] {
            assert_eq!(seal.open(bad), None, "{bad}");
        }
    }
}
