"""Tables whose names and fields are as awkward as they may be."""

from __future__ import annotations

from camber import define_schema, define_table, v

kinds = define_table(
    "kinds",
    v.object(
        {
            "any": v.optional(v.any()),
            "boolean": v.optional(v.boolean()),
            "bytes": v.optional(v.bytes()),
            "int64": v.optional(v.int64()),
            "number": v.optional(v.number()),
            "text": v.optional(v.string()),
        }
    ),
).index("by_numbers", ["number", "int64", "boolean"])

LONG = "x" * 63
"""With one letter more it is as long as a name may be, and longer than PostgreSQL's."""

longest = [
    define_table(
        LONG + last,
        v.object({LONG + letter: v.string() for letter in "abA"}),
    ).index(LONG + "i", [LONG + letter for letter in "abA"])
    for last in "abA"
]

anything = define_table("anything", v.any())

schema = define_schema(kinds, *longest, anything)
