//! What `headwater tune` measured, kept in the user's cache folder: a file for each device, read wherever a model is opened.

use graph::{DeviceInfo, Winners};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// More than any model's shapes fill.
const MOST_BYTES: u64 = 16 << 20;

/// What a file must say of itself to be of this device: another driver, processor or version computes in other ways.
fn header(info: &DeviceInfo) -> Value {
    json!({ "headwater": env!("CARGO_PKG_VERSION"), "device": info.name, "backend": info.backend, "driver": info.driver })
}

/// Where the file of a device lies; none where there is no cache folder.
pub(super) fn file(info: &DeviceInfo) -> Option<PathBuf> {
    // FNV-1a, because names of devices hold all that names of files may not.
    let name = header(info)
        .to_string()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    Some(super::devices::cache_home()?.join("tuned").join(format!("{name:016x}.json")))
}

/// What was measured on a device: none where nothing was.
///
/// # Errors
/// One sentence, when there is a file and it is not what this program writes.
pub(super) fn read(file: &Path, info: &DeviceInfo) -> Result<Option<Winners>, String> {
    let ignored = |why: &str| format!("{} is ignored: {why}; headwater tune writes it anew", file.display());
    match std::fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ignored(&error.to_string())),
        Ok(about) if about.len() > MOST_BYTES => return Err(ignored("it is too large")),
        Ok(_) => {}
    }
    let bytes = std::fs::read(file).map_err(|error| ignored(&error.to_string()))?;
    let object: Value = serde_json::from_slice(&bytes).map_err(|_| ignored("it is damaged"))?;
    if object["of"] != header(info) {
        return Err(ignored("it is of another device, driver or version"));
    }
    let entries = object["ways"]
        .as_object()
        .map(|ways| ways.iter().map(|(shape, way)| Some((shape.clone(), way.as_str()?.to_owned()))));
    let winners = entries.and_then(|entries| entries.collect::<Option<Winners>>());
    winners.map(Some).ok_or_else(|| ignored("it is damaged"))
}

/// Adds what was measured now to what the file holds.
pub(super) fn write(file: &Path, info: &DeviceInfo, measured: &Winners) -> std::io::Result<()> {
    // What cannot be read is replaced, as the sentence about it says.
    let mut all = read(file, info).ok().flatten().unwrap_or_default();
    for (shape, way) in measured.iter() {
        all.insert(shape.to_owned(), way.to_owned());
    }
    let ways: serde_json::Map<String, Value> = all.iter().map(|(shape, way)| (shape.to_owned(), json!(way))).collect();
    let text = serde_json::to_string_pretty(&json!({ "of": header(info), "ways": ways }))?;
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    // Beside the file and renamed, so that whoever reads it meanwhile sees one of the two whole.
    let beside = tempfile::NamedTempFile::new_in(folder)?;
    std::fs::write(beside.path(), text)?;
    beside.persist(file).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::DeviceKind;

    fn info(driver: &str) -> DeviceInfo {
        let (name, backend, driver) = ("Card".into(), "vulkan".into(), driver.into());
        DeviceInfo { name, kind: DeviceKind::DiscreteGpu, backend, driver, features: Vec::new() }
    }

    fn winners(entries: &[(&str, &str)]) -> Winners {
        entries.iter().map(|(shape, way)| ((*shape).to_owned(), (*way).to_owned())).collect()
    }

    #[test]
    fn what_was_measured_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("inner").join("tuned.json");
        assert_eq!(read(&file, &info("1")), Ok(None));
        write(&file, &info("1"), &winners(&[("a 1x2", "x"), ("b", "y")])).unwrap();
        write(&file, &info("1"), &winners(&[("b", "z"), ("c", "x")])).unwrap();
        assert_eq!(read(&file, &info("1")), Ok(Some(winners(&[("a 1x2", "x"), ("b", "z"), ("c", "x")]))));
        assert_eq!(std::fs::read_dir(folder.path().join("inner")).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_is_foreign_or_damaged_is_ignored_in_one_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tuned.json");
        write(&file, &info("1"), &winners(&[("a", "x")])).unwrap();
        let said = |info: &DeviceInfo| read(&file, info).unwrap_err();
        assert!(said(&info("2")).contains("another device, driver or version"));
        let whole = std::fs::read(&file).unwrap();
        for spoilt in [&whole[..whole.len() / 2], b"{}", b"", b"\xff", br#"{"of":1,"ways":{"a":1}}"#] {
            std::fs::write(&file, spoilt).unwrap();
            let said = said(&info("1"));
            assert!(said.contains("is ignored") && !said.contains('\n'), "{said}");
        }
        // Of this device, with a way that is no text.
        let object = json!({ "of": header(&info("1")), "ways": { "a": 1 } });
        std::fs::write(&file, object.to_string()).unwrap();
        assert!(said(&info("1")).contains("damaged"));
        // Measuring again replaces it.
        write(&file, &info("1"), &winners(&[("a", "x")])).unwrap();
        assert_eq!(read(&file, &info("1")), Ok(Some(winners(&[("a", "x")]))));
    }
}
