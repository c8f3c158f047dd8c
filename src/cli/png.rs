//! PNG files with their settings inside, written and read.

use super::error::CliError;
use pipelines::RgbImage;
use std::io::{BufRead, Seek};

/// The most bytes of a compressed text that are read.
const LONGEST_TEXT: usize = 4 << 20;

/// A text chunk: keyword and text.
pub(super) type Text<'a> = (&'a str, &'a str);

/// The file's bytes.
pub(super) fn encode(image: &RgbImage, texts: &[Text<'_>]) -> Result<Vec<u8>, CliError> {
    let failed = |error: ::png::EncodingError| CliError::Failed(format!("cannot encode the image: {error}"));
    let size =
        |extent: usize| u32::try_from(extent).map_err(|_| CliError::Failed("the image is too large for PNG".into()));
    let mut bytes = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut bytes, size(image.width)?, size(image.height)?);
    encoder.set_color(::png::ColorType::Rgb);
    encoder.set_depth(::png::BitDepth::Eight);
    for (keyword, text) in texts {
        // As Pillow does: Latin-1 text in a tEXt chunk, which every reader knows; anything else in iTXt.
        if text.chars().all(|c| u32::from(c) < 256) {
            encoder.add_text_chunk((*keyword).to_owned(), (*text).to_owned()).map_err(failed)?;
        } else {
            encoder.add_itxt_chunk((*keyword).to_owned(), (*text).to_owned()).map_err(failed)?;
        }
    }
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&image.pixels).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

/// What a PNG file says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PngInfo {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) texts: Vec<(String, String)>,
}

/// Reads a PNG file's text chunks, also those that come after the picture.
pub(super) fn read_info(file: impl BufRead + Seek, shown: &str) -> Result<PngInfo, CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::Failed(format!("{shown}: {error}"));
    let read = || {
        let mut reader = ::png::Decoder::new(file).read_info()?;
        reader.finish()?;
        Ok::<_, ::png::DecodingError>(reader.info().clone())
    };
    // The library may come upon something in a damaged file that it does not expect.
    let info = models::contain(read).ok_or_else(|| failed(&"it is damaged"))?.map_err(|e| failed(&e))?;
    let latin1 = info.uncompressed_latin1_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.text.clone()));
    // A text that is damaged, or that grows beyond any measure, is left out.
    let compressed = info.compressed_latin1_text.iter().cloned().filter_map(|mut chunk| {
        chunk.decompress_text_with_limit(LONGEST_TEXT).ok()?;
        Some((chunk.keyword.clone(), chunk.get_text().ok()?))
    });
    let utf8 = info.utf8_text.iter().cloned().filter_map(|mut chunk| {
        chunk.decompress_text_with_limit(LONGEST_TEXT).ok()?;
        Some((chunk.keyword.clone(), chunk.get_text().ok()?))
    });
    Ok(PngInfo { width: info.width, height: info.height, texts: latin1.chain(compressed).chain(utf8).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_survive() {
        let image = RgbImage { width: 1, height: 2, pixels: vec![1, 2, 3, 4, 5, 6] };
        let texts = [("parameters", "café\nSteps: 3"), ("headwater", "{\"prompt\":\"红心 ❤\"}")];
        let bytes = encode(&image, &texts).expect("encodes");
        let info = read_info(std::io::Cursor::new(bytes), "the picture").expect("reads");
        assert_eq!((info.width, info.height), (1, 2));
        let want: Vec<(String, String)> = texts.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        assert_eq!(info.texts, want);
    }
}
