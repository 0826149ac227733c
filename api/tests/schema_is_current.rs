//! The checked-in table of types is what the generator would write today.

#[path = "../examples/generate_schema/source.rs"]
mod source;

#[test]
fn the_table_of_types_is_what_the_generator_writes() {
    let checked_in = include_str!("../src/schema/fields.txt");
    let differs = checked_in.lines().zip(source::generate().lines().map(str::to_owned)).find_map(
        |(ours, theirs)| {
            (ours != theirs).then(|| format!("have {ours:?}, generator has {theirs:?}"))
        },
    );
    assert_eq!(differs, None, "run `cargo run -p kontiki-api --example generate_schema`");
    assert_eq!(checked_in, source::generate());
}
