//! How an object is written down: a header that says what arrays are in it, then the arrays.
//!
//! ```text
//!  0      4       5    6      8          12         16        24
//!  | AOBJ | version | kind | parts | header len | reserved | checksum | part … part | padding | array | padding | array …
//!
//!  part: name len u16 · datatype u8 · flags u8 · rank u8 · 3 × 0 · offset u64 · len u64 · dimensions i64 … · name
//! ```
//!
//! A part that is bytes, and not an array of them, is stored as UINT8 with its length, a u32, in the four bytes before it:
//! so it lies there as the one element of a BYTES tensor as well.
//!
//! Little-endian. Offsets are from the object's start and multiples of 64, so that copying the bytes copies the object.
//! Whoever wrote an object is not believed: [`Object::read`] checks every number before it is used, and works on a copy of
//! the header, which nobody can change meanwhile.

use anyserve_core::{BytesReader, Datatype, Tensor, elements};
use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::alloc::ALIGNMENT;

const MAGIC: &[u8; 4] = b"AOBJ";
const VERSION: u8 = 1;
const HEAD: usize = 24;
const PART: usize = 24;
/// Arrays of one object.
pub const MAX_PARTS: usize = 1024;
/// Dimensions of an array.
pub const MAX_RANK: usize = 32;
/// Longest header, in bytes.
const MAX_HEADER: usize = 1 << 20;
/// Bytes of the length before a part that is bytes.
const PREFIX: u64 = 4;
/// Flag of a part that is bytes and not an array.
const PLAIN: u8 = 1;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One array.
    Array,
    /// Bytes: one part that is bytes.
    Bytes,
    /// Arrays and bytes by name.
    Dict,
}

/// One array of an object, before it is written.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// Its name; empty if the object is one array or bytes.
    pub name: &'a str,
    /// Element type.
    pub datatype: Datatype,
    /// Dimensions.
    pub shape: &'a [i64],
    /// Its elements, row-major.
    pub data: &'a [u8],
    /// It is bytes, and not an array: UINT8 of rank 1, at most 4 GiB.
    pub plain: bool,
}

/// Where everything of an object is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The header, to be written at the start.
    pub header: Vec<u8>,
    /// Where each part begins.
    pub offsets: Vec<u64>,
    /// Bytes of the object.
    pub len: u64,
}

/// One array of an object that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadPart {
    /// The array; datatype, shape and bytes agree.
    pub tensor: Tensor,
    /// If it is bytes: the same as the one element of BYTES data.
    pub framed: Option<Bytes>,
}

/// An object that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// What it is.
    pub kind: Kind,
    /// Its arrays, views of the object's bytes; one if it is no dict.
    pub parts: Vec<ReadPart>,
    /// The checksum that it was written with.
    pub checksum: Option<u64>,
}

/// Bytes that are no object, or an object that cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// The header is cut off, or is none.
    #[error("{len} bytes have no object header")]
    Header {
        /// Bytes there are.
        len: usize,
    },
    /// The object was written by another release.
    #[error("object has version {got}, expected {VERSION}")]
    Version {
        /// Its version.
        got: u8,
    },
    /// A field has no meaning.
    #[error("object has {what} {number}, which has no meaning")]
    Number {
        /// The field.
        what: &'static str,
        /// Its value.
        number: u64,
    },
    /// A part reaches beyond the object, or its datatype, shape and bytes do not agree.
    #[error("part '{name}' of an object has {len} bytes from {offset} on, which do not fit it")]
    Part {
        /// Its name.
        name: String,
        /// Where it begins.
        offset: u64,
        /// Its bytes.
        len: u64,
    },
    /// A name is no text.
    #[error("a name of {len} bytes in an object is not UTF-8")]
    Name {
        /// Its bytes.
        len: usize,
    },
    /// Two parts have the same name.
    #[error("two parts of an object are named '{name}'")]
    Twice {
        /// The name.
        name: String,
    },
    /// The bytes are not those that were written.
    #[error("object has the checksum {got:#018x}, expected {expected:#018x}")]
    Checksum {
        /// Of the bytes.
        got: u64,
        /// As it was written.
        expected: u64,
    },
}

// === impl Plan ===

impl Plan {
    /// Lays an object out. With `sum`, its header carries a checksum of the parts' bytes.
    ///
    /// # Errors
    /// More parts, dimensions or characters of names than there may be, or not one part where there must be one.
    pub fn of(kind: Kind, parts: &[Part<'_>], sum: bool) -> Result<Self, ObjectError> {
        let count = u16::try_from(parts.len()).ok().filter(|_| has_parts(kind, parts.len()));
        let count = count.ok_or(ObjectError::Number { what: "parts", number: parts.len() as u64 })?;
        let header_len = parts.iter().map(|part| PART + 8 * part.shape.len() + part.name.len()).sum::<usize>() + HEAD;
        let short = u32::try_from(header_len).ok().filter(|_| header_len <= MAX_HEADER);
        let short = short.ok_or(ObjectError::Number { what: "header length", number: header_len as u64 })?;
        let mut header = Vec::with_capacity(header_len);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&[VERSION, kind.number()]);
        header.extend_from_slice(&count.to_le_bytes());
        header.extend_from_slice(&short.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        header.extend_from_slice(&if sum { checksum(parts.iter().map(|part| part.data)) } else { 0 }.to_le_bytes());
        let (mut offsets, mut end) = (Vec::with_capacity(parts.len()), header_len as u64);
        for part in parts {
            let offset = (end + if part.plain { PREFIX } else { 0 }).next_multiple_of(ALIGNMENT);
            end = offset + part.data.len() as u64;
            put_part(&mut header, part, offset)?;
            offsets.push(offset);
        }
        Ok(Self { header, offsets, len: end })
    }
}

fn put_part(header: &mut Vec<u8>, part: &Part<'_>, offset: u64) -> Result<(), ObjectError> {
    if part.plain && part.prefix().is_none() {
        return Err(ObjectError::Part { name: part.name.to_owned(), offset, len: part.data.len() as u64 });
    }
    let name_len = u16::try_from(part.name.len());
    let name_len = name_len.map_err(|_| ObjectError::Number { what: "name length", number: part.name.len() as u64 })?;
    let rank = u8::try_from(part.shape.len()).ok().filter(|_| part.shape.len() <= MAX_RANK);
    let rank = rank.ok_or(ObjectError::Number { what: "rank", number: part.shape.len() as u64 })?;
    header.extend_from_slice(&name_len.to_le_bytes());
    let datatype = u8::try_from(part.datatype.number()).expect("there are 14 datatypes");
    header.extend_from_slice(&[datatype, u8::from(part.plain), rank, 0, 0, 0]);
    header.extend_from_slice(&offset.to_le_bytes());
    header.extend_from_slice(&(part.data.len() as u64).to_le_bytes());
    part.shape.iter().for_each(|size| header.extend_from_slice(&size.to_le_bytes()));
    header.extend_from_slice(part.name.as_bytes());
    Ok(())
}

// === impl Part ===

impl Part<'_> {
    /// What is to be written in the four bytes before a part that is bytes; `None` before any other, and if it is too long.
    pub fn prefix(&self) -> Option<[u8; 4]> {
        let plain = self.plain && self.datatype == Datatype::Uint8 && self.shape.len() == 1;
        plain.then(|| u32::try_from(self.data.len()).ok().map(u32::to_le_bytes)).flatten()
    }
}

/// The checksum of an object's arrays, in order: xxh3, 64 bits; never 0, which stands for none.
fn checksum<'a>(parts: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut hash = Xxh3::new();
    parts.for_each(|part| hash.update(part));
    hash.digest().max(1)
}

fn has_parts(kind: Kind, parts: usize) -> bool {
    if kind == Kind::Dict { parts <= MAX_PARTS } else { parts == 1 }
}

// === impl Object ===

impl Object {
    /// Reads an object; its arrays are views of `bytes`.
    ///
    /// # Errors
    /// [`ObjectError`] for anything that this module does not write.
    pub fn read(bytes: &Bytes) -> Result<Self, ObjectError> {
        let head = bytes.first_chunk::<HEAD>().ok_or(ObjectError::Header { len: bytes.len() })?;
        let header_len =
            usize::try_from(u32::from_le_bytes([head[8], head[9], head[10], head[11]])).unwrap_or(usize::MAX);
        let whole = bytes.get(..header_len).filter(|_| (HEAD..=MAX_HEADER).contains(&header_len));
        // A copy: whoever can write to the memory could change it between a look and the next.
        let header = whole.ok_or(ObjectError::Header { len: bytes.len() })?.to_vec();
        let mut read = Reader { rest: &header, end: header_len as u64 };
        if read.take::<4>()? != *MAGIC {
            return Err(ObjectError::Header { len: bytes.len() });
        }
        let [version, kind] = read.take()?;
        if version != VERSION {
            return Err(ObjectError::Version { got: version });
        }
        let meaningless = ObjectError::Number { what: "kind", number: kind.into() };
        let kind = Kind::from_number(kind).ok_or(meaningless)?;
        let count = u16::from_le_bytes(read.take()?);
        if !has_parts(kind, count.into()) {
            return Err(ObjectError::Number { what: "parts", number: count.into() });
        }
        read.take::<4>()?;
        read.nothing::<4>()?;
        let checksum = Some(u64::from_le_bytes(read.take()?)).filter(|sum| *sum != 0);
        let parts = (0..count).map(|_| read.part(bytes, kind)).collect::<Result<Vec<_>, _>>()?;
        if !read.rest.is_empty() {
            return Err(ObjectError::Number { what: "header length", number: header_len as u64 });
        }
        check_names(&parts)?;
        Ok(Self { kind, parts, checksum })
    }

    /// Compares the bytes with the checksum that the object was written with, if it was.
    ///
    /// # Errors
    /// [`ObjectError::Checksum`].
    pub fn verify(&self) -> Result<(), ObjectError> {
        let Some(expected) = self.checksum else { return Ok(()) };
        let got = checksum(self.parts.iter().map(|part| &part.tensor.data[..]));
        if got == expected { Ok(()) } else { Err(ObjectError::Checksum { got, expected }) }
    }
}

fn check_names(parts: &[ReadPart]) -> Result<(), ObjectError> {
    let mut names: Vec<_> = parts.iter().map(|part| &part.tensor.name).collect();
    names.sort_unstable();
    let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
    twice.map_or(Ok(()), |pair| Err(ObjectError::Twice { name: pair[0].clone() }))
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Where what was read so far ends. Parts follow each other: no byte is walked over more than once.
    end: u64,
}

// === impl Reader ===

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], ObjectError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(ObjectError::Header { len: self.rest.len() })?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Bytes that mean nothing yet: zeros.
    fn nothing<const N: usize>(&mut self) -> Result<(), ObjectError> {
        let other = self.take::<N>()?.into_iter().find(|byte| *byte != 0);
        other.map_or(Ok(()), |byte| Err(ObjectError::Number { what: "reserved", number: byte.into() }))
    }

    fn name(&mut self, len: usize) -> Result<String, ObjectError> {
        let (name, rest) = self.rest.split_at_checked(len).ok_or(ObjectError::Header { len: self.rest.len() })?;
        self.rest = rest;
        String::from_utf8(name.to_vec()).map_err(|_| ObjectError::Name { len })
    }

    fn part(&mut self, bytes: &Bytes, kind: Kind) -> Result<ReadPart, ObjectError> {
        let name_len = u16::from_le_bytes(self.take()?);
        let [datatype, flags, rank] = self.take()?;
        self.nothing::<3>()?;
        let (offset, len) = (u64::from_le_bytes(self.take()?), u64::from_le_bytes(self.take()?));
        let meaningless = |what, number: u8| ObjectError::Number { what, number: number.into() };
        let datatype = Datatype::from_number(datatype.into()).ok_or_else(|| meaningless("datatype", datatype))?;
        if flags & !PLAIN != 0 {
            return Err(meaningless("flags", flags));
        }
        if usize::from(rank) > MAX_RANK {
            return Err(meaningless("rank", rank));
        }
        let shape = (0..rank).map(|_| self.take().map(i64::from_le_bytes)).collect::<Result<Vec<_>, _>>()?;
        let name = self.name(name_len.into())?;
        let plain = flags & PLAIN != 0;
        let is_bytes = plain && datatype == Datatype::Uint8 && rank == 1;
        let framed = if is_bytes { framed(bytes, offset, len) } else { None };
        let begins = offset.saturating_sub(if plain { PREFIX } else { 0 });
        let may_be = begins >= self.end && framed.is_some() == plain && (plain || kind != Kind::Bytes);
        let data = slice(bytes, offset, len).filter(|data| may_be && fits(datatype, &shape, data));
        let data = data.ok_or_else(|| ObjectError::Part { name: name.clone(), offset, len })?;
        self.end = offset + len;
        let tensor = Tensor { name, datatype, shape, data, parameters: Vec::new() };
        Ok(ReadPart { tensor, framed })
    }
}

fn slice(bytes: &Bytes, offset: u64, len: u64) -> Option<Bytes> {
    let end = offset.checked_add(len).filter(|end| *end <= bytes.len() as u64 && offset.is_multiple_of(ALIGNMENT))?;
    Some(bytes.slice(usize::try_from(offset).ok()?..usize::try_from(end).ok()?))
}

/// A part with the length before it, if that is its length.
fn framed(bytes: &Bytes, offset: u64, len: u64) -> Option<Bytes> {
    let start = usize::try_from(offset.checked_sub(PREFIX)?).ok()?;
    let end = usize::try_from(offset.checked_add(len)?).ok()?;
    let framed = bytes.get(start..end)?;
    let is_len = framed.first_chunk().is_some_and(|prefix| u64::from(u32::from_le_bytes(*prefix)) == len);
    is_len.then(|| bytes.slice(start..end))
}

fn fits(datatype: Datatype, shape: &[i64], data: &[u8]) -> bool {
    match Tensor::expected_len(datatype, shape) {
        Ok(Some(expected)) => expected == data.len(),
        Ok(None) => {
            let read = BytesReader::new(data).try_fold(0, |count, item| item.is_ok().then_some(count + 1));
            read.is_some() && read == elements(shape).ok()
        }
        Err(_) => false,
    }
}

// === impl Kind ===

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Array => 0,
            Self::Bytes => 1,
            Self::Dict => 2,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::Array, Self::Bytes, Self::Dict].into_iter().find(|shape| shape.number() == number)
    }
}
