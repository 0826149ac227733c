use super::*;

const STABLE: u64 = 100 * SEGMENT_BYTES as u64;

fn sealed(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes) ^ u32::MAX
}

fn header_of(number: u64) -> Vec<u8> {
    let lsn = i64::try_from(number * SEGMENT_BYTES as u64).unwrap();
    let mut words = (lsn ^ i64::MAX).to_le_bytes().to_vec();
    words.extend_from_slice(&i64::MAX.to_le_bytes());
    [sealed(&words).to_le_bytes().to_vec(), words].concat()
}

/// A message of a small segment's number, as sled writes it.
fn message_for(number: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    let head = [&[8, 251], &length[..], &[number, 7]].concat();
    let checksum = sealed(&[body, &head].concat());
    [&checksum.to_le_bytes()[..], &head, body].concat()
}

/// A segment with forty messages of 50,000 bytes, not filled up.
fn segment(number: u8) -> Vec<u8> {
    let mut segment = header_of(u64::from(number));
    for fill in 0..40 {
        segment.extend(message_for(number, &vec![fill; 50_000]));
    }
    segment.resize(SEGMENT_BYTES, 0);
    segment
}

fn verdict(segment: &[u8]) -> Option<usize> {
    check_segment(segment, STABLE).err().map(|(offset, _)| offset)
}

#[test]
fn a_whole_segment_holds() {
    assert_eq!(verdict(&segment(5)), None);
    assert_eq!(verdict(&vec![0; SEGMENT_BYTES]), None);
    assert_eq!(verdict(&[]), None);
}

#[test]
fn a_flipped_bit_is_found_where_it_is() {
    let message = 50_012;
    for (flipped, found) in [
        (3, 0),
        (10, 0),
        (HEADER_BYTES, HEADER_BYTES),
        (HEADER_BYTES + 4, HEADER_BYTES),
        (HEADER_BYTES + 6, HEADER_BYTES),
        (HEADER_BYTES + 10, HEADER_BYTES),
        (HEADER_BYTES + 25_000, HEADER_BYTES),
        (HEADER_BYTES + 7 * message + 3_000, HEADER_BYTES + 7 * message),
    ] {
        let mut segment = segment(5);
        segment[flipped] ^= 0x10;
        assert_eq!(verdict(&segment), Some(found), "byte {flipped}");
    }
}

#[test]
fn the_last_record_of_a_full_segment_is_looked_at_too() {
    let mut segment = header_of(5);
    let body = SEGMENT_BYTES - HEADER_BYTES - 12 - 20;
    segment.extend(message_for(5, &vec![1; body]));
    segment.resize(SEGMENT_BYTES, 0);
    assert_eq!(verdict(&segment), None);
    segment[40_000] ^= 1;
    assert_eq!(verdict(&segment), Some(HEADER_BYTES));
}

/// The process died between writing the second part of a segment anew and its header.
#[test]
fn a_segment_that_was_written_anew_from_its_middle_is_none_that_rotted() {
    let mut half = segment(5);
    let newer = segment(9);
    let middle = HEADER_BYTES + 20 * 50_012;
    half[middle..].copy_from_slice(&newer[middle..]);
    assert_eq!(verdict(&half), None);
    // Only some of it was: what stood after that is there still.
    let mut part = segment(5);
    let torn = middle + 60_000;
    part[middle..torn].copy_from_slice(&newer[middle..torn]);
    assert_eq!(verdict(&part), None);
}

#[test]
fn the_end_of_the_log_is_left_to_sled() {
    let mut segment = segment(5);
    segment[30_000] ^= 1;
    assert!(check_segment(&segment, 5 * SEGMENT_BYTES as u64).is_ok());
    assert!(check_segment(&segment, 6 * SEGMENT_BYTES as u64).is_err());
}

#[test]
fn numbers_are_read_as_sled_writes_them() {
    for (bytes, number) in [
        (&[240][..], 240),
        (&[241, 1], 241),
        (&[248, 255], 2287),
        (&[249, 0, 0], 2288),
        (&[249, 255, 255], 67_823),
        (&[250, 0x40, 0x0a, 0x03], 0x03_0a40),
        (&[255, 1, 2, 3, 4, 5, 6, 7, 8], 0x0807_0605_0403_0201),
    ] {
        assert_eq!(varint(bytes, 0), Some((number, bytes.len())));
        assert_eq!(varint(&bytes[..bytes.len() - 1], 0), None);
    }
}
