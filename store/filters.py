"""SQL filters over the columns of a table: names in double quotes, and errors that say what to write instead.

The database (DataFusion, by way of Lance) takes double-quoted text for a constant, silently drops text after a semicolon, and
reports types by its own names.  `checked_filter` rewrites or refuses a filter before the database reads it, `explain_filter`
puts the database's error in a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tonelake.store.errors import FilterError

QUOTED_TEXT = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`""")
LONGEST_REASON = 240                     # characters of an error that has no sentence of its own


def quote(text: str) -> str:
    """An SQL string literal.

    >>> quote("Guns N' Roses")
    "'Guns N'' Roses'"
    """
    return "'" + text.replace("'", "''") + "'"


def checked_filter(where: str, columns: Sequence[str]) -> str:
    r"""A filter with column names in double quotes, as standard SQL writes them, in backticks, as the database reads them.

    The database takes double-quoted text for a constant, so that `"artist" != 'X'` would keep every row.  Raises FilterError
    for double-quoted text that does not name a column, and unless the filter is a single expression: the parser silently drops
    text after a semicolon.

    >>> checked_filter("\"artist\" = 'the \"King\"'", ["artist"])
    '`artist` = \'the "King"\''
    """
    if ";" in QUOTED_TEXT.sub("", where) or not where.strip():
        raise FilterError(f"filter {where!r}: not a single SQL expression. Write for example \"artist = 'X' AND year > 1990\"")

    def name(match: re.Match[str]) -> str:
        text = match[0]
        if text.startswith("'"):
            return text
        inner = text[1:-1].replace('""', '"')
        if inner.lower() in columns:     # names of columns are in lower case
            return f"`{inner.lower()}`"
        if text.startswith("`"):
            return text                  # the database names the columns that are near
        raise FilterError(
            f"filter {where!r}: {text} in double quotes is the name of a column, and clips have no such column. Write text in "
            f"single quotes: {quote(inner)}"
        )

    return QUOTED_TEXT.sub(name, where)


def is_filter_error(error: str) -> bool:
    """Whether an error of a scan is that of its filter, which failed on a value, rather than of the table's files.

    >>> is_filter_error("Error applying filter expression to batch: Divide by zero error"), is_filter_error("not found")
    (True, False)
    """
    return any(words in error for words in ("Cast error", "applying filter expression", "Task was aborted"))


def explain_filter(where: str, error: str, columns: Sequence[str]) -> str:
    """The database's error without its source positions, with a remedy; the columns are listed unless it is about a value."""
    plain = error.split(", /")[0]
    for pattern, sentence in SENTENCES:
        if found := pattern.search(plain):
            return f"filter {where!r}: cannot be used ({sentence(found)})"
    reason = plain.split(" Valid fields are ")[0]        # which include the table's internal columns
    for prefix in PREFIXES:
        reason = re.sub(prefix, "", reason)
    reason = reason.splitlines()[0].rstrip(".") if reason.strip() else "not an SQL expression"
    if len(reason) > LONGEST_REASON:
        reason = reason[:LONGEST_REASON] + " …"
    return f"filter {where!r}: cannot be used ({reason}). Columns are {', '.join(columns)}"


PREFIXES = (
    r"^Invalid user input: ", r"^Error resolving filter expression .*?: Invalid user input: ",
    r"^Error optimizing sql filter: .*?: (?=Error during planning)",
)
LIST = "a column of lists has no single value; write array_has(COLUMN, 'value')"
TIME = "write timestamp '2026-01-31 12:00:00', or date '2026-01-31'"
# By the first word of the database's name of a type: what a value of it is, and what a column of it holds.
TYPES = {
    "Utf8": ("text", "text"), "LargeUtf8": ("text", "text"), "Int64": ("a number", "whole numbers"),
    "Float64": ("a decimal number", "decimal numbers"), "Boolean": ("true or false", "true or false"),
    "Timestamp": ("a time", "times"), "Date32": ("a date", "dates"), "List": ("a list", "lists"),
}


def held(kind: str) -> str:
    """Kind of values in a column of one of the database's types.

    >>> held('Timestamp(Microsecond, Some("UTC"))'), held("Int32")
    ('times', 'Int32')
    """
    return TYPES.get(kind.partition("(")[0], (kind, kind))[1]


def wrong_literal(found: re.Match[str]) -> str:
    """The sentence for a literal that cannot be compared with its column."""
    kind, value, wanted = found["kind"], found["value"], found["wanted"]
    if wanted.startswith("List"):
        return LIST
    is_text = kind.endswith("Utf8")
    if is_text:
        value = quote(value[1:-1])
    given = f"{value} is {'text' if is_text else TYPES.get(kind, ('a value',))[0]}"
    if wanted.startswith(("Timestamp", "Date")):
        return f"{given}, and the column holds times; {TIME}"
    if kind == "Boolean":
        return f"{value} is a truth value, and the column holds {held(wanted)}; compare it with one of its values"
    if wanted == "Boolean":
        return f"{given}, and the column holds true or false; write COLUMN = true, or COLUMN = false"
    if wanted.endswith("Utf8"):
        return f"{value} is a number, and the column holds text; write '{value}', or TRY_CAST(COLUMN AS double)"
    if is_text:
        return f"{given}, and the column holds numbers; leave out the quotes"
    return f"{value} is a decimal number, and the column holds whole ones; write CAST(COLUMN AS double)"


def wrong_comparison(found: re.Match[str]) -> str:
    """The sentence for a comparison of two expressions whose types have nothing in common."""
    first, second = held(found["first"]), held(found["second"])
    if "lists" in (first, second):
        return LIST
    return f"{first} cannot be compared with {second}; write CAST or TRY_CAST(COLUMN AS …)"


def not_a_list(found: re.Match[str]) -> str:
    """The sentence for a function of lists that is given another column."""
    return f"{found['name']} takes a column of lists, and the column holds {held(found['kind'])}"


SENTENCES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"Received literal (?P<kind>\w+)\((?P<value>.*?)\) and could not convert to literal of type '(?P<wanted>.*)'"),
     wrong_literal),
    (re.compile(r"common argument type for comparison operation (?P<first>\w+(?:\(.*?\))?) .* (?P<second>\w+(?:\(.*\))?)"),
     wrong_comparison),
    (re.compile(r"common type to coerce (?P<kind>\w+)\S* .*in I?LIKE expression"),
     lambda found: LIST if found["kind"] == "List" else
     f"LIKE compares text{'' if held(found['kind']) == 'text' else ', and the column holds ' + held(found['kind'])}; write "
     "CAST(COLUMN AS string) LIKE '…'"),
    (re.compile(r"Cannot cast string '(?P<value>.*)' to value of (?P<wanted>\w+)"),
     lambda found: f"Cannot cast string {found['value']!r} to {'a date' if found['wanted'] == 'Date32' else 'a number'}. "
     "Write TRY_CAST, which gives no value for such text"),
    (re.compile(r"Parser error: Error parsing (?:timestamp|date) from '(?P<value>.*?)'"),
     lambda found: f"{found['value']!r} is not a time; {TIME}"),
    (re.compile(r"coercion from List\((?P<first>\w+)\), (?P<second>\w+)"),
     lambda found: f"the lists hold {held(found['first'])}, and the value is {TYPES.get(found['second'], ('another',))[0]}"),
    (re.compile(r"call to '(?P<name>\w+)' function: coercion from (?P<kind>\w+)"), not_a_list),
    (re.compile(r"(?P<name>array_\w+) does not support type (?P<kind>\w+)"), not_a_list),
    (re.compile(r"Function '(?P<name>\w+)' requires \w+, but received (?P<kind>\w+)"),
     lambda found: f"{found['name']} takes other values than {held(found['kind'])}; write CAST(COLUMN AS string)"),
    (re.compile(r"does not support logical expression AggregateFunction"),
     lambda found: "count, sum, min and the like have no value for a single clip; compare a column"),
    (re.compile(r"Divide by zero"), lambda found: "it divides by zero; write nullif(DIVISOR, 0)"),
    (re.compile(r"Expression '(?P<part>.*)' is not supported SQL"),
     lambda found: f"{found['part']} is not supported in filters"),
    (re.compile(r"Task was aborted"), lambda found: "it holds a placeholder, ? or :NAME; write the value itself"),
)
