"""Names and text from model files, as they may stand in C."""

import re

# C99 need not tell longer names apart.
_LONGEST_NAME = 63
_LONGEST_COMMENT = 120
# Keywords of C and C++, macros of common compilers and headers, and what generated files define.
_RESERVED = re.compile(
    "alignas|alignof|and|and_eq|asm|assert|auto|bitand|bitor|bool|break|case|catch|char|class|"
    "co_await|co_return|co_yield|compl|complex|concept|const|const_cast|consteval|constexpr|"
    "constinit|continue|decltype|default|delete|do|double|dynamic_cast|else|enum|errno|explicit|"
    "export|extern|false|float|for|friend|goto|i386|if|imaginary|inline|int|linux|long|mutable|"
    "namespace|new|noexcept|noreturn|not|not_eq|nullptr|operator|or|or_eq|private|protected|public|"
    "register|reinterpret_cast|requires|restrict|return|short|signed|sizeof|static|static_assert|"
    "static_cast|stderr|stdin|stdout|struct|switch|template|this|thread_local|throw|true|try|"
    "typedef|typeid|typename|typeof|typeof_unqual|union|unix|unsigned|using|virtual|void|volatile|"
    "while|xor|xor_eq|workspace|memcpy|memmove|memset|"
    # Types, functions of mcuforge and TVM, macros for limits and constants.
    r"\w+_t|mcuforge_\w+|tvmgen_\w+|[A-Z][A-Z0-9]*(_[A-Z0-9]+)+|NULL|NAN|INFINITY",
    re.ASCII,
)


def identifier(text: str, default: str, taken: set[str]) -> str:
    """A legal C name of at most 63 characters for a name that may hold anything.

    ``model/dense:0`` becomes ``model_dense_0``, and ``model_dense_0_1`` where that is taken.

    Args:
        text: the name to start from.
        default: the name if nothing of `text` is left; it precedes digits and reserved words.
        taken: names that are in use; the result is added.
    """
    base = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_")
    if not base or base[0].isdigit() or _RESERVED.fullmatch(base):
        base = f"{default}_{base}".rstrip("_")
    name, count = base[:_LONGEST_NAME], 1
    while name in taken:
        suffix = f"_{count}"
        name, count = f"{base[: _LONGEST_NAME - len(suffix)]}{suffix}", count + 1
    taken.add(name)
    return name


def comment(text: str) -> str:
    """Text that may stand inside a C comment or a line of prose, shortened to 120 characters.

    Asterisks end comments, question marks start trigraphs, backslashes join lines, and control
    characters do as they like: what is not harmless ASCII becomes an underscore.
    """
    harmless = re.sub(r"[^\w .,:;/+=@()\[\]<>-]", "_", text[: _LONGEST_COMMENT + 1], flags=re.ASCII)
    if len(harmless) > _LONGEST_COMMENT:
        return f"{harmless[: _LONGEST_COMMENT - 3]}..."
    return harmless
