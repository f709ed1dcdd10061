"""What a value is: kinds, JSON forms, order, index keys, sizes, ids and validators."""

from camber.values.builders import v
from camber.values.containers import ObjectValidator
from camber.values.encoding import decode_value, encode_clean, encode_text, encode_value, parse_json, to_json
from camber.values.ids import NEW_ID_BYTES, decode_id, encode_id, new_id, new_internal_id
from camber.values.keys import AFTER_KEY, field_of, float_key, key_of, parts_reader
from camber.values.kinds import MISSING, UNSET, Int64, Missing, RawDocument, Unset, Value
from camber.values.normalize import normalize, normalize_document, prepare_document
from camber.values.ordering import compare
from camber.values.reading import exact_json, validator_from_json
from camber.values.rendering import render
from camber.values.shapes import shape_validator
from camber.values.sizes import SYSTEM_FIELDS_SIZE, nesting_of, size_of
from camber.values.stored import decode_document, encode_document
from camber.values.validators import TableNames, Validator

__all__ = [
    "AFTER_KEY",
    "MISSING",
    "NEW_ID_BYTES",
    "SYSTEM_FIELDS_SIZE",
    "UNSET",
    "Int64",
    "Missing",
    "ObjectValidator",
    "RawDocument",
    "TableNames",
    "Unset",
    "Validator",
    "Value",
    "compare",
    "decode_document",
    "decode_id",
    "decode_value",
    "encode_clean",
    "encode_document",
    "encode_id",
    "encode_text",
    "encode_value",
    "exact_json",
    "field_of",
    "float_key",
    "key_of",
    "nesting_of",
    "new_id",
    "new_internal_id",
    "normalize",
    "normalize_document",
    "parse_json",
    "parts_reader",
    "prepare_document",
    "render",
    "shape_validator",
    "size_of",
    "to_json",
    "v",
    "validator_from_json",
]
