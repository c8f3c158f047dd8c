//! A model's files, which lie with the browser and are read in pieces.

use js_sys::{ArrayBuffer, Uint8Array};
use models::Pieces;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use wasm_bindgen::prelude::*;

/// The script's copy of what is read is no larger.
const PIECE: usize = 4 << 20;

#[wasm_bindgen]
extern "C" {
    /// A browser's file, or a part of one.
    pub type Blob;
    #[wasm_bindgen(method, getter)]
    fn size(this: &Blob) -> f64;

    #[wasm_bindgen(js_namespace = URL, js_name = createObjectURL)]
    fn address(blob: &Blob) -> String;
    #[wasm_bindgen(js_namespace = URL, js_name = revokeObjectURL)]
    fn forget(address: &str);

    /// What reads an address and waits for it, as only a worker may.
    #[wasm_bindgen(js_name = XMLHttpRequest)]
    type Request;
    #[wasm_bindgen(constructor, js_class = "XMLHttpRequest")]
    fn new() -> Request;
    #[wasm_bindgen(method, catch)]
    fn open(this: &Request, method: &str, address: &str, later: bool) -> Result<(), js_sys::Error>;
    #[wasm_bindgen(method, setter, js_name = responseType)]
    fn wants(this: &Request, what: &str);
    #[wasm_bindgen(method, catch, js_name = setRequestHeader)]
    fn header(this: &Request, name: &str, value: &str) -> Result<(), js_sys::Error>;
    #[wasm_bindgen(method, catch)]
    fn send(this: &Request) -> Result<(), js_sys::Error>;
    #[wasm_bindgen(method, getter)]
    fn status(this: &Request) -> u32;
    #[wasm_bindgen(method, getter)]
    fn response(this: &Request) -> ArrayBuffer;
}

/// A file of a model, by an address that all threads can read.
#[derive(Debug)]
struct File {
    address: String,
    length: usize,
}

impl File {
    /// None if it is larger than WebAssembly can address.
    fn new(blob: &Blob) -> Option<Self> {
        let size = blob.size();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole, and compared before")]
        let length = (size <= f64::from(u32::MAX)).then_some(size as usize)?;
        Some(Self { address: address(blob), length })
    }

    fn piece(&self, range: &Range<usize>) -> Result<Uint8Array, js_sys::Error> {
        let request = Request::new();
        request.open("GET", &self.address, false)?;
        request.wants("arraybuffer");
        request.header("Range", &format!("bytes={}-{}", range.start, range.end - 1))?;
        request.send()?;
        let bytes = Uint8Array::new(&request.response());
        // A browser that knows no ranges of such addresses gives all of the file.
        Ok(if request.status() == 206 { bytes } else { bytes.subarray(range.start as u32, range.end as u32) })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        forget(&self.address);
    }
}

impl Pieces for File {
    fn length(&self) -> usize {
        self.length
    }

    fn read(&self, range: Range<usize>) -> Result<Vec<u8>, String> {
        let mut all = vec![0; range.len()];
        for (piece, start) in all.chunks_mut(PIECE).zip(range.step_by(PIECE)) {
            let read = self.piece(&(start..start + piece.len()));
            let bytes = read.map_err(|error| format!("cannot be read ({})", error.message()))?;
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
    pub fn add(&mut self, path: String, blob: &Blob) -> Result<(), JsError> {
        let file = File::new(blob).ok_or_else(|| {
            JsError::new(&format!("{path}: has more than 4 GiB; a model for browsers has smaller shards"))
        })?;
        self.0.insert(path, Arc::new(file));
        Ok(())
    }
}

impl Files {
    /// A folder in diffusers' layout, or one file that is all of a model.
    pub(crate) fn into_model(mut self, name: &str) -> Result<models::ModelFiles, models::ModelError> {
        match self.0.pop_first() {
            Some((path, file)) if self.0.is_empty() && path.ends_with(".safetensors") => {
                models::ModelFiles::single_in_pieces(&path, file)
            }
            first => {
                self.0.extend(first);
                Ok(models::ModelFiles::pieces(name, self.0))
            }
        }
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
