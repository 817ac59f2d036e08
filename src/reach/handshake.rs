//! How both ends of a connection that the relay has dialled prove who they are.
//!
//! ```text
//! relay → proxy   Hello: magic, version, role, a fresh nonce
//! proxy → relay   Challenge: a fresh nonce, HMAC(secret, "proxy" ‖ Hello ‖ nonce)
//! relay → proxy   Proof: HMAC(secret, "relay" ‖ Hello ‖ the proxy's nonce)
//! ```
//!
//! Each side's proof covers both nonces and the role, under a label of its own: a recording proves
//! nothing to anybody, one side's proof is none of the other's, and a connection cannot pass for
//! another one's. The proxy proves itself first, so nobody else learns even a proof of the relay's.
//! Each message has one length.

use std::fmt::{self, Debug, Display};

use hmac_sha256::HMAC;

use super::VERSION;

/// Bytes of a nonce.
pub const NONCE: usize = 32;
/// Bytes of the relay's first message.
pub const HELLO: usize = MAGIC.len() + 1 + ROLE + NONCE;
/// Bytes of the proxy's answer.
pub const CHALLENGE: usize = NONCE + MAC;
/// Bytes of the relay's second message.
pub const PROOF: usize = MAC;

const MAGIC: &[u8; 7] = b"vsreach";
const MAC: usize = 32;
/// A kind and a number.
const ROLE: usize = 1 + 8;
const CONTROL: u8 = b'C';
const DATA: u8 = b'D';

/// Random bytes that were never used before.
pub type Nonce = [u8; NONCE];

/// What the proxy and the relay of one session share.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// 256 random bits.
    pub fn new(bits: [u8; 32]) -> Self {
        Self(bits)
    }

    /// As 64 hexadecimal digits.
    pub(super) fn to_hex(&self) -> String {
        use std::fmt::Write as _;
        self.0
            .iter()
            .fold(String::with_capacity(64), |mut hex, byte| {
                // A string takes everything.
                let _ = write!(hex, "{byte:02x}");
                hex
            })
    }

    /// From 64 hexadecimal digits, the lower-case ones that `to_hex` writes.
    pub(super) fn from_hex(hex: &str) -> Option<Self> {
        let mut bits = [0; 32];
        let (digits, rest) = hex.as_bytes().as_chunks::<2>();
        if digits.len() != bits.len() || !rest.is_empty() {
            return None;
        }
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        for (byte, [high, low]) in bits.iter_mut().zip(digits) {
            *byte = value(*high)? << 4 | value(*low)?;
        }
        Some(Self(bits))
    }

    fn hmac(&self, label: &[u8], hello: &[u8; HELLO], nonce: &Nonce) -> HMAC {
        let mut hmac = HMAC::new(self.0);
        for part in [label, hello, nonce] {
            hmac.update(part);
        }
        hmac
    }

    fn prove(&self, label: &[u8], hello: &[u8; HELLO], nonce: &Nonce) -> [u8; MAC] {
        self.hmac(label, hello, nonce).finalize()
    }

    /// In a time that does not tell where they differ.
    fn is_proof(&self, mac: &[u8; MAC], label: &[u8], hello: &[u8; HELLO], nonce: &Nonce) -> bool {
        self.hmac(label, hello, nonce).finalize_verify(mac)
    }
}

impl Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

const PROXY: &[u8] = b"proxy";
const RELAY: &[u8] = b"relay";

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Orders and reports.
    Control,
    /// The bytes of one client.
    Data {
        /// Which one.
        number: u64,
    },
}

impl Role {
    fn encode(self) -> [u8; ROLE] {
        let (kind, number) = match self {
            Self::Control => (CONTROL, 0),
            Self::Data { number } => (DATA, number),
        };
        let mut role = [kind; ROLE];
        role[1..].copy_from_slice(&u64::to_be_bytes(number));
        role
    }

    fn decode(role: &[u8; ROLE]) -> Option<Self> {
        let [kind, number @ ..] = role;
        match (*kind, u64::from_be_bytes(*number)) {
            (CONTROL, 0) => Some(Self::Control),
            (DATA, number) => Some(Self::Data { number }),
            _ => None,
        }
    }
}

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It speaks something else.
    Stranger,
    /// It speaks another version of the protocol.
    Version(u8),
    /// It does not know the secret, or the connection is not the one that it says.
    Unproven,
}

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stranger => f.write_str("it speaks another protocol"),
            Self::Version(version) => write!(f, "it speaks version {version}, not {VERSION}"),
            Self::Unproven => f.write_str("it does not know the session's secret"),
        }
    }
}

impl std::error::Error for Refusal {}

/// A message that is being read.
#[derive(Clone, Debug)]
struct Partial<const N: usize> {
    bytes: [u8; N],
    filled: usize,
}

impl<const N: usize> Partial<N> {
    const EMPTY: Self = Self {
        bytes: [0; N],
        filled: 0,
    };

    fn wanted(&self) -> usize {
        N - self.filled
    }

    /// Takes from `input` what belongs to the message; the message once it is whole.
    fn take(&mut self, input: &mut &[u8]) -> Option<&[u8; N]> {
        let (taken, rest) = input.split_at(self.wanted().min(input.len()));
        self.bytes[self.filled..][..taken.len()].copy_from_slice(taken);
        self.filled += taken.len();
        *input = rest;
        (self.filled == N).then_some(&self.bytes)
    }
}

/// The relay's side of a handshake.
#[derive(Clone, Debug)]
pub struct Dialler {
    hello: [u8; HELLO],
    challenge: Partial<CHALLENGE>,
    refused: bool,
}

impl Dialler {
    /// Begins the handshake of a connection for `role`, with a fresh nonce.
    pub fn new(role: Role, nonce: Nonce) -> Self {
        let mut hello = [VERSION; HELLO];
        let (magic, rest) = hello.split_at_mut(MAGIC.len());
        magic.copy_from_slice(MAGIC);
        let (role_place, nonce_place) = rest[1..].split_at_mut(ROLE);
        role_place.copy_from_slice(&role.encode());
        nonce_place.copy_from_slice(&nonce);
        Self {
            hello,
            challenge: Partial::EMPTY,
            refused: false,
        }
    }

    /// What is to be sent first.
    pub fn hello(&self) -> &[u8; HELLO] {
        &self.hello
    }

    /// How many bytes to read at most.
    pub fn wanted(&self) -> usize {
        self.challenge.wanted()
    }

    /// Takes from `input` what belongs to the handshake. Once the proxy has proved itself: what is to
    /// be sent, after which the connection is as good as its peer's word.
    ///
    /// # Errors
    /// The peer is not this session's proxy; and so ever after.
    pub fn feed(
        &mut self,
        secret: &Secret,
        input: &mut &[u8],
    ) -> Result<Option<[u8; PROOF]>, Refusal> {
        if self.refused {
            return Err(Refusal::Unproven);
        }
        let Some(challenge) = self.challenge.take(input) else {
            return Ok(None);
        };
        let (nonce, mac) = halves(challenge);
        if !secret.is_proof(mac, PROXY, &self.hello, nonce) {
            self.refused = true;
            return Err(Refusal::Unproven);
        }
        Ok(Some(secret.prove(RELAY, &self.hello, nonce)))
    }
}

fn halves(challenge: &[u8; CHALLENGE]) -> (&Nonce, &[u8; MAC]) {
    let (nonce, mac) = challenge.split_at(NONCE);
    match (nonce.first_chunk(), mac.first_chunk()) {
        (Some(nonce), Some(mac)) => (nonce, mac),
        // They have these lengths.
        _ => (&[0; NONCE], &[0; MAC]),
    }
}

/// How far an [`Acceptor`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// More has to come.
    More,
    /// This is to be sent.
    Answer([u8; CHALLENGE]),
    /// The peer is the session's relay, and the connection is for this.
    Accepted(Role),
}

#[derive(Clone, Debug)]
enum Stage {
    Hello(Partial<HELLO>),
    Proof {
        hello: [u8; HELLO],
        role: Role,
        proof: Partial<PROOF>,
    },
    Refused(Refusal),
}

/// The proxy's side of a handshake.
#[derive(Clone, Debug)]
pub struct Acceptor {
    nonce: Nonce,
    stage: Stage,
}

impl Acceptor {
    /// For one connection, with a fresh nonce.
    pub fn new(nonce: Nonce) -> Self {
        Self {
            nonce,
            stage: Stage::Hello(Partial::EMPTY),
        }
    }

    /// How many bytes to read at most; 0 once the connection was accepted or refused.
    pub fn wanted(&self) -> usize {
        match &self.stage {
            Stage::Hello(hello) => hello.wanted(),
            Stage::Proof { proof, .. } => proof.wanted(),
            Stage::Refused(_) => 0,
        }
    }

    /// Takes from `input` what belongs to the next message of the handshake.
    ///
    /// # Errors
    /// The peer is not let in; and so ever after.
    pub fn feed(&mut self, secret: &Secret, input: &mut &[u8]) -> Result<Reached, Refusal> {
        let answer = self.step(secret, input);
        if let Err(refusal) = answer {
            self.stage = Stage::Refused(refusal);
        }
        answer
    }

    fn step(&mut self, secret: &Secret, input: &mut &[u8]) -> Result<Reached, Refusal> {
        match &mut self.stage {
            Stage::Hello(hello) => {
                let before = hello.filled;
                let whole = hello.take(input).copied();
                // A stranger is known by its first bytes, and need not send more.
                let (seen, magic) = (&hello.bytes[..hello.filled], &MAGIC[..]);
                if before < magic.len() && !magic.starts_with(&seen[..seen.len().min(magic.len())])
                {
                    return Err(Refusal::Stranger);
                }
                let Some(hello) = whole else {
                    return Ok(Reached::More);
                };
                let version = hello[MAGIC.len()];
                if version != VERSION {
                    return Err(Refusal::Version(version));
                }
                let role = hello[MAGIC.len() + 1..].first_chunk();
                let role = role.and_then(Role::decode).ok_or(Refusal::Stranger)?;
                let mut challenge = [0; CHALLENGE];
                let (nonce, mac) = challenge.split_at_mut(NONCE);
                nonce.copy_from_slice(&self.nonce);
                mac.copy_from_slice(&secret.prove(PROXY, &hello, &self.nonce));
                self.stage = Stage::Proof {
                    hello,
                    role,
                    proof: Partial::EMPTY,
                };
                Ok(Reached::Answer(challenge))
            }
            Stage::Proof { hello, role, proof } => match proof.take(input) {
                None => Ok(Reached::More),
                Some(mac) if secret.is_proof(mac, RELAY, hello, &self.nonce) => {
                    Ok(Reached::Accepted(*role))
                }
                Some(_) => Err(Refusal::Unproven),
            },
            Stage::Refused(refusal) => Err(*refusal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA_7: Role = Role::Data { number: 7 };

    fn secret() -> Secret {
        Secret::new([3; 32])
    }

    /// A whole handshake: what went each way, and its outcome.
    fn shake(
        mut dialler: Dialler,
        mut acceptor: Acceptor,
        secrets: (&Secret, &Secret),
    ) -> Result<(Role, [u8; CHALLENGE], [u8; PROOF]), Refusal> {
        let hello = *dialler.hello();
        let Reached::Answer(challenge) = acceptor.feed(secrets.1, &mut &hello[..])? else {
            panic!("a whole hello is answered");
        };
        let proof = dialler.feed(secrets.0, &mut &challenge[..])?;
        let proof = proof.expect("a whole challenge is answered");
        match acceptor.feed(secrets.1, &mut &proof[..])? {
            Reached::Accepted(role) => Ok((role, challenge, proof)),
            other => panic!("a whole proof is judged, not {other:?}"),
        }
    }

    #[test]
    fn whoever_knows_the_secret_is_let_in_for_what_he_said() {
        for role in [Role::Control, DATA_7, Role::Data { number: u64::MAX }] {
            let (dialler, acceptor) = (Dialler::new(role, [1; 32]), Acceptor::new([2; 32]));
            let got = shake(dialler, acceptor, (&secret(), &secret()));
            assert_eq!(got.map(|got| got.0), Ok(role));
        }
    }

    #[test]
    fn no_more_is_read_than_belongs_to_the_next_message() {
        let (mut dialler, mut acceptor) = (Dialler::new(DATA_7, [1; 32]), Acceptor::new([2; 32]));
        assert_eq!((dialler.wanted(), acceptor.wanted()), (CHALLENGE, HELLO));
        let hello = *dialler.hello();
        let reached = acceptor.feed(&secret(), &mut &hello[..]);
        let Ok(Reached::Answer(challenge)) = reached else {
            panic!("a whole hello is answered");
        };
        assert_eq!(dialler.feed(&secret(), &mut &challenge[..3]), Ok(None));
        assert_eq!(
            (dialler.wanted(), acceptor.wanted()),
            (CHALLENGE - 3, PROOF)
        );
    }

    #[test]
    fn a_refusal_says_why() {
        for (refusal, words) in [
            (Refusal::Stranger, "another protocol"),
            (Refusal::Version(7), "version 7, not 1"),
            (Refusal::Unproven, "secret"),
        ] {
            assert!(refusal.to_string().contains(words), "{refusal}");
        }
    }

    #[test]
    fn neither_side_believes_another_secret() {
        let other = Secret::new([4; 32]);
        let (dialler, acceptor) = (Dialler::new(DATA_7, [1; 32]), Acceptor::new([2; 32]));
        let got = shake(dialler.clone(), acceptor.clone(), (&secret(), &other));
        assert_eq!(got, Err(Refusal::Unproven), "the relay is first to judge");

        let mut acceptor = acceptor;
        acceptor
            .feed(&secret(), &mut &dialler.hello()[..])
            .expect("a hello");
        let forged = other.prove(RELAY, dialler.hello(), &[2; 32]);
        let judged = acceptor.feed(&secret(), &mut &forged[..]);
        assert_eq!(judged, Err(Refusal::Unproven));
        assert_eq!(acceptor.wanted(), 0);
        let right = secret().prove(RELAY, dialler.hello(), &[2; 32]);
        let again = acceptor.feed(&secret(), &mut &right[..]);
        assert_eq!(again, Err(Refusal::Unproven), "a second guess");
    }

    #[test]
    fn a_recording_proves_nothing() {
        let (dialler, acceptor) = (Dialler::new(DATA_7, [1; 32]), Acceptor::new([2; 32]));
        let recorded = shake(dialler.clone(), acceptor, (&secret(), &secret()));
        let (_, challenge, proof) = recorded.expect("a handshake");
        // To the proxy, whose nonce is another one now.
        let mut acceptor = Acceptor::new([5; 32]);
        acceptor
            .feed(&secret(), &mut &dialler.hello()[..])
            .expect("a hello");
        let judged = acceptor.feed(&secret(), &mut &proof[..]);
        assert_eq!(judged, Err(Refusal::Unproven));
        // To a relay, likewise.
        let mut dialler = Dialler::new(DATA_7, [6; 32]);
        let judged = dialler.feed(&secret(), &mut &challenge[..]);
        assert_eq!(judged, Err(Refusal::Unproven));
    }

    #[test]
    fn a_reflection_proves_nothing() {
        let dialler = Dialler::new(DATA_7, [1; 32]);
        let mut acceptor = Acceptor::new([2; 32]);
        let answer = acceptor.feed(&secret(), &mut &dialler.hello()[..]);
        let Ok(Reached::Answer(challenge)) = answer else {
            panic!("{answer:?}");
        };
        let judged = acceptor.feed(&secret(), &mut &challenge[NONCE..]);
        assert_eq!(judged, Err(Refusal::Unproven));
    }

    #[test]
    fn a_proof_for_one_connection_is_none_for_another() {
        for other in [Role::Control, Role::Data { number: 8 }] {
            let proof = secret().prove(RELAY, Dialler::new(DATA_7, [1; 32]).hello(), &[2; 32]);
            let mut acceptor = Acceptor::new([2; 32]);
            let hello = *Dialler::new(other, [1; 32]).hello();
            acceptor.feed(&secret(), &mut &hello[..]).expect("a hello");
            let judged = acceptor.feed(&secret(), &mut &proof[..]);
            assert_eq!(judged, Err(Refusal::Unproven));
        }
    }

    #[test]
    fn a_stranger_is_known_by_the_first_wrong_byte() {
        for (bytes, refusal) in [
            (&b"GET / HTTP/1.1\r\n"[..], Refusal::Stranger),
            (b"v\0", Refusal::Stranger),
            (b"\0", Refusal::Stranger),
        ] {
            let judged = Acceptor::new([2; 32]).feed(&secret(), &mut &*bytes);
            assert_eq!(judged, Err(refusal));
        }
        let mut hello = *Dialler::new(DATA_7, [1; 32]).hello();
        hello[MAGIC.len()] = 9;
        let judged = Acceptor::new([2; 32]).feed(&secret(), &mut &hello[..]);
        assert_eq!(judged, Err(Refusal::Version(9)));
        hello[MAGIC.len()] = VERSION;
        hello[MAGIC.len() + 1] = b'X';
        let judged = Acceptor::new([2; 32]).feed(&secret(), &mut &hello[..]);
        assert_eq!(judged, Err(Refusal::Stranger));
    }

    #[test]
    fn what_follows_the_handshake_is_left_alone() {
        let (mut dialler, mut acceptor) = (Dialler::new(DATA_7, [1; 32]), Acceptor::new([2; 32]));
        let hello = *dialler.hello();
        let mut challenge = None;
        for byte in hello {
            match acceptor.feed(&secret(), &mut &[byte][..]) {
                Ok(Reached::Answer(answer)) => challenge = Some(answer),
                other => assert_eq!(other, Ok(Reached::More)),
            }
        }
        let challenge = challenge.expect("the whole hello was fed");
        let proof = dialler.feed(&secret(), &mut &challenge[..]);
        let proof = proof.expect("the right secret").expect("whole");
        let stream = [&proof[..], b"greeting"].concat();
        let mut input = &stream[..];
        let accepted = acceptor.feed(&secret(), &mut input);
        assert_eq!(accepted, Ok(Reached::Accepted(DATA_7)));
        assert_eq!((input, acceptor.wanted()), (&b"greeting"[..], 0));
    }
}
