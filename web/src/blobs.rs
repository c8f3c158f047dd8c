//! A model's files, which lie with the browser and are read in pieces.

use js_sys::{ArrayBuffer, Uint8Array};
use models::Pieces;
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use wasm_bindgen::prelude::*;

/// The script's copy of what is read is no larger.
const PIECE: usize = 4 << 20;

#[wasm_bindgen]
extern "C" {
    /// A browser's file, or a part of one.
    #[derive(Clone)]
    pub type Blob;
    #[wasm_bindgen(method, getter)]
    fn size(this: &Blob) -> f64;
    #[wasm_bindgen(method)]
    fn slice(this: &Blob, start: f64, end: f64) -> Blob;

    /// What reads blobs and waits for them, as only a worker may.
    type FileReaderSync;
    #[wasm_bindgen(constructor)]
    fn new() -> FileReaderSync;
    #[wasm_bindgen(method, catch, js_name = readAsArrayBuffer)]
    fn read(this: &FileReaderSync, blob: &Blob) -> Result<ArrayBuffer, js_sys::Error>;
}

thread_local! {
    /// Blobs belong to the one thread that there is, and models may be shared between threads elsewhere: files name theirs by a number.
    static BLOBS: RefCell<BTreeMap<u32, Blob>> = const { RefCell::new(BTreeMap::new()) };
}

/// A file of a model.
#[derive(Debug)]
struct File {
    blob: u32,
    length: usize,
}

impl File {
    /// None if it is larger than WebAssembly can address.
    fn new(blob: Blob) -> Option<Self> {
        let size = blob.size();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole, and compared before")]
        let length = (size <= f64::from(u32::MAX)).then_some(size as usize)?;
        let blob = BLOBS.with_borrow_mut(|blobs| {
            let free = blobs.last_key_value().map_or(0, |(last, _)| last + 1);
            blobs.insert(free, blob);
            free
        });
        Some(Self { blob, length })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        BLOBS.with_borrow_mut(|blobs| blobs.remove(&self.blob));
    }
}

impl Pieces for File {
    fn length(&self) -> usize {
        self.length
    }

    fn read(&self, range: Range<usize>) -> Result<Vec<u8>, String> {
        let blob = BLOBS.with_borrow(|blobs| blobs.get(&self.blob).cloned());
        let blob = blob.ok_or("is no longer there")?;
        let reader = FileReaderSync::new();
        let mut all = vec![0; range.len()];
        for (piece, start) in all.chunks_mut(PIECE).zip((range.start..).step_by(PIECE)) {
            #[allow(clippy::cast_precision_loss, reason = "they are below 2^32")]
            let part = blob.slice(start as f64, (start + piece.len()) as f64);
            let read = reader.read(&part);
            let read = read.map_err(|error| format!("cannot be read ({})", error.message()))?;
            let bytes = Uint8Array::new(&read);
            if bytes.length() as usize != piece.len() {
                return Err("was changed while it was read".into());
            }
            bytes.copy_to(piece);
        }
        Ok(all)
    }
}

/// A model's files, which come one after the other.
#[wasm_bindgen]
#[derive(Default)]
pub struct Files(BTreeMap<String, Arc<dyn Pieces>>);

#[wasm_bindgen]
impl Files {
    /// None yet.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Files {
        Self::default()
    }

    /// One file, by its path within the model.
    pub fn add(&mut self, path: String, blob: Blob) -> Result<(), JsError> {
        let file = File::new(blob).ok_or_else(|| {
            JsError::new(&format!("{path}: has more than 4 GiB; a model for browsers has smaller shards"))
        })?;
        self.0.insert(path, Arc::new(file));
        Ok(())
    }
}

impl Files {
    pub(crate) fn into_model(self, name: &str) -> models::ModelFiles {
        models::ModelFiles::pieces(name, self.0)
    }
}

/// A file's SHA-256 sum, which grows while the file comes in: a browser's own wants all of it at once, and a page with a secure address.
#[wasm_bindgen]
#[derive(Default)]
pub struct Sum(Sha256);

#[wasm_bindgen]
impl Sum {
    /// Of nothing.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Sum {
        Self::default()
    }

    /// The next bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// What it is so far, in hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
