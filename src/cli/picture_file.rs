//! Files of pictures with their settings inside: PNG, and JPEG and WebP, which keep them in EXIF.

use super::error::CliError;
use super::png::{self, Text};
use crate::PictureError;
pub(super) use crate::PictureFormat as Format;
pub(super) use crate::save::QUALITY;
use exif::experimental::Writer;
use exif::{Field, In, Tag, Value};
use image::{ImageDecoder, ImageFormat, ImageReader};
use pipelines::RgbImage;
use std::io::{BufRead, BufReader, Cursor, Read as _, Seek};
use std::path::Path;

/// The most bytes of EXIF in JPEG: it has one segment, whose length is 16 bits, and which begins with a mark of six bytes.
const MOST_EXIF: usize = 65_000;

/// The file's bytes.
pub(super) fn encode(format: Format, image: &RgbImage, texts: &[Text<'_>]) -> Result<Vec<u8>, CliError> {
    encode_with(format, QUALITY, image, texts)
}

/// The same with another quality, of JPEG, between 1 and 100.
pub(super) fn encode_with(
    format: Format,
    quality: u8,
    image: &RgbImage,
    texts: &[Text<'_>],
) -> Result<Vec<u8>, CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::Failed(format!("cannot encode the image: {error}"));
    if format == Format::Png {
        return png::encode(image, texts);
    }
    let mut exif = exif_of(texts).map_err(|error| failed(&error))?;
    if format == Format::Jpeg && exif.len() > MOST_EXIF {
        // What other tools read goes before what only this one does.
        let parameters: Vec<Text<'_>> = texts.iter().copied().filter(|(keyword, _)| *keyword == "parameters").collect();
        exif = exif_of(&parameters).map_err(|error| failed(&error))?;
        exif.truncate(if exif.len() > MOST_EXIF { 0 } else { exif.len() });
        note!("note: what a JPEG can say of itself is too little for all settings: PNG keeps them");
    }
    format.encode(image, quality, exif).map_err(|error| CliError::Failed(error.to_string()))
}

/// What a file says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PictureInfo {
    pub(super) format: &'static str,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) texts: Vec<(String, String)>,
}

/// Whether a file is a picture that may say how it was made.
pub(super) fn is_picture(path: &Path) -> Result<bool, CliError> {
    let mut start = [0; 12];
    let read = std::fs::File::open(path).and_then(|mut file| std::io::Read::read(&mut file, &mut start));
    let read = read.map_err(|error| CliError::Failed(format!("cannot read {}: {error}", path.display())))?;
    let start = &start[..read];
    let marks: [&[u8]; 5] = [b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*"];
    let is_webp = start.starts_with(b"RIFF") && start.ends_with(b"WEBP");
    Ok(is_png(start) || is_webp || marks.iter().any(|mark| start.starts_with(mark)))
}

fn is_png(start: &[u8]) -> bool {
    start.starts_with(b"\x89PNG\r\n\x1a\n")
}

/// Reads what it says.
pub(super) fn read_info(path: &Path) -> Result<PictureInfo, CliError> {
    let shown = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|error| CliError::Failed(format!("{shown}: {error}")))?;
    read_from(BufReader::new(file), &shown, || crate::read_picture(path))
}

/// The same of a file in memory that someone sent.
#[cfg(feature = "serve")]
pub(super) fn read_info_of(bytes: &[u8], most_pixels: u64) -> Result<PictureInfo, CliError> {
    let name = "the picture";
    read_from(Cursor::new(bytes), name, || crate::PictureBytes { name, bytes, most_pixels }.picture())
}

fn read_from(
    mut file: impl BufRead + Seek,
    shown: &str,
    picture: impl FnOnce() -> Result<RgbImage, PictureError>,
) -> Result<PictureInfo, CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::Failed(format!("{shown}: {error}"));
    let mut start = Vec::new();
    let read = file.by_ref().take(8).read_to_end(&mut start).and_then(|_| file.rewind());
    read.map_err(|error| failed(&error))?;
    if is_png(&start) {
        let info = png::read_info(file, shown)?;
        return Ok(PictureInfo { format: "PNG", width: info.width, height: info.height, texts: info.texts });
    }
    // Reading the picture finds out whether the file is whole, which the libraries below take for granted.
    let picture = picture()?;
    let exif = || {
        let reader = ImageReader::new(file).with_guessed_format().ok()?;
        let format = match reader.format()? {
            ImageFormat::Jpeg => "JPEG",
            ImageFormat::WebP => "WebP",
            ImageFormat::Gif => "GIF",
            ImageFormat::Bmp => "BMP",
            _ => "TIFF",
        };
        Some((format, reader.into_decoder().ok()?.exif_metadata().ok().flatten()))
    };
    let (format, exif) =
        models::contain(exif).flatten().ok_or_else(|| failed(&"is no picture that says how it was made"))?;
    let texts = exif.and_then(|exif| models::contain(|| texts_in(exif))).unwrap_or_default();
    let [width, height] = [picture.width, picture.height].map(|side| u32::try_from(side).unwrap_or(u32::MAX));
    Ok(PictureInfo { format, width, height, texts })
}

/// What stands before a comment that is UTF-16.
const UNICODE: &[u8] = b"UNICODE\0";

/// The parameters as AUTOMATIC1111's web UI writes them, in the user's comment, and our own settings as the picture's description.
fn exif_of(texts: &[Text<'_>]) -> Result<Vec<u8>, exif::Error> {
    let text = |keyword: &str| texts.iter().find(|(own, _)| *own == keyword).map(|(_, text)| *text);
    let mut fields = Vec::new();
    if let Some(parameters) = text("parameters") {
        let comment = [UNICODE, &parameters.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>()].concat();
        fields.push(Field { tag: Tag::UserComment, ifd_num: In::PRIMARY, value: Value::Undefined(comment, 0) });
    }
    if let Some(settings) = text("headwater") {
        // The field is ASCII; JSON has an escape for everything else.
        let ascii: String = settings.chars().map(|c| if c.is_ascii() { c.to_string() } else { escaped(c) }).collect();
        let value = Value::Ascii(vec![ascii.into_bytes()]);
        fields.push(Field { tag: Tag::ImageDescription, ifd_num: In::PRIMARY, value });
    }
    let mut writer = Writer::new();
    fields.iter().for_each(|field| writer.push_field(field));
    let mut bytes = Cursor::new(Vec::new());
    writer.write(&mut bytes, false)?;
    Ok(bytes.into_inner())
}

/// A character as JSON writes it in ASCII.
fn escaped(c: char) -> String {
    c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
}

fn texts_in(exif: Vec<u8>) -> Vec<(String, String)> {
    let Ok(exif) = exif::Reader::new().read_raw(exif) else { return Vec::new() };
    let field = |tag| exif.get_field(tag, In::PRIMARY).map(|field| &field.value);
    let mut texts = Vec::new();
    if let Some(Value::Undefined(comment, _)) = field(Tag::UserComment)
        && let Some(units) = comment.strip_prefix(UNICODE)
    {
        let units: Vec<u16> = units.chunks_exact(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]])).collect();
        texts.push(("parameters".to_owned(), String::from_utf16_lossy(&units)));
    }
    if let Some(Value::Ascii(lines)) = field(Tag::ImageDescription)
        && let Some(line) = lines.first().filter(|line| line.starts_with(b"{"))
    {
        texts.push(("headwater".to_owned(), String::from_utf8_lossy(line).into_owned()));
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_leave_a_whole_jpeg() {
        let image = RgbImage { width: 9, height: 8, pixels: vec![200; 9 * 8 * 3] };
        let (short, long) = ("x".repeat(20_000), "x".repeat(40_000));
        for (parameters, kept) in [(&short, 1), (&long, 0)] {
            let bytes =
                encode(Format::Jpeg, &image, &[("parameters", parameters), ("headwater", &long)]).expect("encodes");
            let file = tempfile::NamedTempFile::with_suffix(".jpg").expect("a temporary file");
            std::fs::write(file.path(), bytes).expect("writes");
            assert_eq!(read_info(file.path()).expect("a whole picture").texts.len(), kept);
        }
    }

    #[test]
    fn texts_survive_in_every_format() {
        let image = RgbImage { width: 9, height: 8, pixels: vec![200; 9 * 8 * 3] };
        let settings = serde_json::json!({ "prompt": "红心 ❤ \u{1f98a}" });
        let texts = [("parameters", "café ❤\nSteps: 3"), ("headwater", &*settings.to_string())];
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, format) in [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.webp", "WebP")] {
            let path = folder.path().join(name);
            std::fs::write(&path, encode(Format::of(&path).expect("known"), &image, &texts).expect("encodes"))
                .expect("writes");
            let info = read_info(&path).expect("reads");
            assert_eq!((info.format, info.width, info.height), (format, 9, 8));
            let text = |keyword: &str| info.texts.iter().find(|(own, _)| own == keyword).map(|(_, text)| text.as_str());
            assert_eq!(text("parameters"), Some(texts[0].1), "{name}");
            let own: serde_json::Value = serde_json::from_str(text("headwater").expect("kept")).expect("JSON");
            assert_eq!(own, settings, "{name}");
        }
        std::fs::write(folder.path().join("no"), "RIFF").expect("writes");
        assert!(!is_picture(&folder.path().join("no")).expect("reads"));
        assert!(is_picture(&folder.path().join("a.webp")).expect("reads"));
    }
}
