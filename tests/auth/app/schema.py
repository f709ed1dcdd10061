"""No tables: this application only tells who calls."""

from camber import define_schema

schema = define_schema()
