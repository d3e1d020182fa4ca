//! What our own load generators say: `123 in 5.01 s, 0 errors`.

use super::compare::Answered;
use crate::Failed;

/// The line for so many units in so many seconds.
pub(super) fn line(count: f64, seconds: f64, errors: f64) -> String {
    format!("{count} in {seconds:.3} s, {errors} errors")
}

/// Reads the line. Nothing but errors is a failure.
pub(super) fn read(text: &str) -> Result<Answered, Failed> {
    let strange = || format!("the load generator said something else: {text:?}");
    let words: Vec<&str> = text.split_whitespace().collect();
    let [count, "in", seconds, "s,", errors, "errors"] = words[..] else { return Err(strange()) };
    let number = |text: &str| text.parse::<f64>().map_err(|_| strange());
    let (count, seconds, errors) = (number(count)?, number(seconds)?, number(errors)?);
    match count > 0.0 && seconds > 0.0 {
        true => Ok(Answered { count, per_second: count / seconds, latency: None, errors }),
        false => Err(format!("nothing came of it: {}", text.trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_load_generator_says_is_read() {
        let answered = Answered { count: 10.0, per_second: 5.0, latency: None, errors: 1.0 };
        assert_eq!(read(&line(10.0, 2.0, 1.0)), Ok(answered));
        assert!(read(&line(0.0, 2.0, 16.0)).is_err());
        assert!(read("Segmentation fault").is_err());
    }
}
