"""Checksums and shapes, against published values."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.detection import validators

CARDS = str.split(
    "4111111111111111 4012888888881881 4222222222222 5555555555554444 5105105105105100 2223000048400011 "
    "378282246310005 371449635398431 6011111111111117 6011000990139424 30569309025904 38520000023237 "
    "3530111333300000 3566002020360505 6759649826438453 6200000000000005"
)
IBANS = str.split(
    "GB82WEST12345698765432 DE89370400440532013000 FR1420041010050500013M02606 NL91ABNA0417164300 "
    "ES9121000418450200051332 BE68539007547034 CH9300762011623852957 MT84MALT011000012345MTLCAST001S "
    "NO9386011117947 LC55HEMM000100010012001200023015 SA0380000000608010167519 "
    "GR1601101250000000012300695 BR1800360305000010009795493C1"
)


@pytest.mark.parametrize("number", CARDS)
def test_published_test_cards_pass(number):
    """The schemes' published test numbers are cards."""
    assert validators.luhn(number)
    assert validators.card(number)


@given(st.sampled_from(CARDS), st.data())
def test_luhn_catches_every_single_wrong_digit(number, data):
    """Changing any one digit breaks the Luhn sum."""
    place = data.draw(st.integers(0, len(number) - 1))
    digit = data.draw(st.sampled_from([d for d in "0123456789" if d != number[place]]))
    assert not validators.luhn(number[:place] + digit + number[place + 1 :])


@pytest.mark.parametrize("number", ["9111111111111111", "411111111111111", "0000000000000000", "36168002586008", ""])
def test_a_card_needs_an_issuer_and_its_length(number):
    """A good sum without a known issuer, or with another length, is no card."""
    assert not validators.card(number)


@pytest.mark.parametrize("number", IBANS)
def test_published_ibans_pass(number):
    """The registry's examples pass, in either case."""
    assert validators.iban(number)
    assert validators.iban(number.lower())


@given(st.sampled_from(IBANS), st.data())
def test_iban_catches_wrong_digits_and_lengths(number, data):
    """One changed digit or one lost character breaks an IBAN."""
    place = data.draw(st.sampled_from([i for i, c in enumerate(number) if c.isdigit()]))
    digit = data.draw(st.sampled_from([d for d in "0123456789" if d != number[place]]))
    assert not validators.iban(number[:place] + digit + number[place + 1 :])
    assert not validators.iban(number[:place] + number[place + 1 :])


def test_iban_needs_a_country_that_has_one():
    """A country without IBANs has none, whatever the check digits say."""
    assert validators.iban_length("us") == 0
    assert not validators.iban("US64SVBKUS6S3300958879")


@pytest.mark.parametrize(
    ("digits", "valid"),
    [
        ("078051120", True), ("219099999", True), ("000123456", False), ("666123456", False), ("900123456", False),
        ("123004567", False), ("123450000", False), ("12345678", False),
    ],
)  # fmt: skip
def test_ssn_ranges(digits, valid):
    """Areas 000, 666 and 9xx, group 00 and serial 0000 are never issued."""
    assert validators.us_ssn(digits) is valid


@pytest.mark.parametrize(
    ("digits", "valid"),
    [("9434765919", True), ("4010232137", True), ("9434765918", False), ("1111111111", False), ("943476591", False)],
)
def test_nhs_numbers(digits, valid):
    """The NHS data dictionary's example passes, and its neighbours do not."""
    assert validators.nhs_number(digits) is valid


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        ("12345678Z", True), ("00000000t", True), ("X1234567L", True), ("z1234567r", True), ("12345678A", False),
        ("W1234567L", False), ("1234567Z", False), ("", False),
    ],
)  # fmt: skip
def test_spanish_ids(value, valid):
    """The letter of a DNI or NIE is the one that its number asks for."""
    assert validators.spanish_id(value) is valid


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        ("203.0.113.9", True), ("10.1.2.3", True), ("2001:db8::1", True), ("256.1.1.1", False), ("127.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 - nothing listens here
        ("255.255.255.0", False), ("::1", False), ("224.0.0.1", False), ("1.2.3", False),
    ],
)  # fmt: skip
def test_ip_addresses(value, valid):
    """Addresses that can point at somebody pass; loopback, masks, groups and nonsense do not."""
    assert validators.ip_address(value) is valid


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        ("eyJhbGciOiJub25lIn0.e30.", True), ("eyJhbGciOiJIUzI1NiJ9.e30.abc", True), ("eyJmb28iOjF9.e30.abc", False),
        ("eyJhbGci.e30", False), ("eyJhbGci.e30.abc", False), ("\u00e9.e30.abc", False), ("W10.e30.abc", False),
    ],
)  # fmt: skip
def test_jwt_shape(value, valid):
    """Three parts, of which the first decodes to a JSON object that names its algorithm."""
    assert validators.jwt(value) is valid


@given(st.text(max_size=50))
def test_entropy_is_bounded(value):
    """Entropy lies between zero and the logarithm of the alphabet, and one repeated character has none."""
    assert 0 <= validators.entropy(value) <= 8
    assert validators.entropy("a" * len(value)) == 0


@given(st.text(max_size=60))
def test_checks_of_free_text_never_raise(value):
    """Whatever the text, the checks that take text answer instead of raising."""
    for check in (validators.iban, validators.ip_address, validators.jwt, validators.spanish_id):
        assert check(value) in (True, False)


def test_combinations_of_equal_digits_are_no_cards():
    """A number made of one digit is a filler, never a card."""
    assert not any(validators.card(digit * size) for digit, size in itertools.product("0123456789", range(12, 20)))
