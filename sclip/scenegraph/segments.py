"""Cut a caption from the web into the segments that describe the picture.

Alt-text is a series of parts: a description, a site's name, a price, hashtags, a byline. A parser that reads
all parts as one sentence relates the dog to the shop that sells the photograph. So this module cuts captions
at separators and leaves out parts that describe nothing; each segment is parsed alone. Quick checks find the captions
that need no cut, which are most. Every pattern is bounded, so the work is linear in a caption's length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sclip.scenegraph.graph import Span
from sclip.scenegraph.lexicon import COLOURS, is_noun


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a caption that is parsed alone. Some of its characters may be left out."""

    text: str
    origins: Sequence[int]  # index in the caption for each character of `text`

    def origin(self, span: Span) -> Span:
        """Return the span of the caption for a span of `text`."""
        start, end = span
        if start == end:
            position = self.origins[start] if start < len(self.origins) else self.origins[-1] + 1
            return position, position
        return self.origins[start], self.origins[end - 1] + 1

    def without(self, spans: Iterable[Span]) -> Segment:
        """Return the segment without the spans, which are in order and do not overlap."""
        kept, position = [], 0
        for start, end in spans:
            kept.append((position, start))
            position = end
        kept.append((position, len(self.text)))
        return Segment(
            "".join(self.text[start:end] for start, end in kept),
            [origin for start, end in kept for origin in self.origins[start:end]],
        )


_KIND = (
    "(?:photo(?:graph(?:y|s)?|s)?|images?|pictures?|pics?|illustrations?|vectors?|art(?:work)?|clipart|graphics?|footage"
    "|videos?|wallpapers?|prints?|posters?|drawings?|paintings?|portrait|sketch|sculpture|mural|designs?|cover|clip|decor)"
)

_TRIGGERS = frozenset(
    """stock royalty rights getty shutterstock istock alamy copyright hd 4k i you we how why what where check click buy
    download vector clipart via courtesy credit contain result results sale discover your any free
    slow stabilized handheld shop vectors istockphoto dreamstime depositphotos uhd 8k premium""".split()
)
_TOKEN = re.compile(r"[a-z0-9]+")
_ODD = re.compile(r"[^A-Za-z\s,.'\"!;-]|\.[.a-zA-Z]|--|\s-")
_SIGNS = re.compile(
    r"[|<>\[\](){}@#~*=_/\\$€£©®™•·…»«›‹×?–—]|:(?!\d)|\s-+\s|--|\.\.|\d{5}|\d\s?x\s?\d|\d[/.-]\d|\.[a-z]|&\w"
)
_BYLINE_START = re.compile(r"[,.]\s?by\s|\s[Bb]y:?\s[A-Z]|\sby\s(?:person|\w* ?artist|author)\b")
_STARTS = re.compile(
    r"""(?:^|[.!]\s+)(?:(?:the\s|\d+\s)?(?:\w+\s)?(?:ideas?|tips?|recipes?|guide|tutorials?|inspiration|reasons|ways|things)\s
    |(?:learn|read|get|see|enjoy|find|try|let|don|is|are|do|does|did|can|could|should|would|will|keep|make|order|please|browse
    |explore|subscribe|follow|sign|add|thank|who|when)\b)""",
    re.I | re.X,
)

_AMOUNT = r"(?:\s?(?:k|m|bn|million|billion|thousand|each|usd|off)\b)?"

_EXTENSION = r"\.(?:jpe?g|png|gif|webp|tiff?|bmp|svg|psd|eps|pdf|mp4|mov|html?|php)\b"
_DATE = r"(?:\d{4}-\d\d?-\d\d?(?:T[\d:.]+Z?)?|\d\d?[/.]\d\d?[/.]\d{2,4})\b"
_FIRST_WORDS = (
    "(?:by|via|cc|on|at|from|no|id|sku|item|ref|model|issue|only|just|for|under|over|less|as|us|photo|image|picture|page|slide"
    "|copyright|in|with|royalty|rights|free|premium|stock|vector|clip|getty|shutterstock|istock|istockphoto|alamy"
    f"|dreamstime|depositphotos|{_KIND})"
)
"""First words of the long phrases in `_MARKS`, whose slow patterns are tried only at these words."""
_MARKS = re.compile(
    rf"""
    (?=[<&@#©®™$€£(.])(?:
        <(?P<name>[A-Za-z]{{1,30}})>
      | (?P<and>&amp;)
      | (?P<break><(?:br|p|div|li|tr|td|h\d)\b[^<>]{{0,300}}> | &nbsp;)
      | (?P<cut></?[a-zA-Z!][^<>]{{0,300}}> | &\#?\w{{1,8}}; | @[\w.-]+ | [®™] | {_EXTENSION}
          | \([^()\s]{{1,20}}(?:\s[^()\s]{{1,20}}){{0,2}}\)
          | ©(?:\s?(?-i:[A-Z]|\d)[\w.'’&-]{{0,30}}){{0,5}}
          | \#+(?:\s?\d+\w?\b|(?=\s|$)) | [$€£]\s?\d[\d,.]*{_AMOUNT})
      | (?P<hashtag>\#[^\W\d_]\w*)
    )
  | (?<![\w-])(?=\w)(?P<phrase>
        (?=[\w+-]{{1,40}}[.@:])(?:
            (?:https?://|www\.)[^\s|<>()]+
          | [\w+-]{{1,40}}(?:\.[\w+-]{{1,40}}){{0,3}}@[\w.-]+
          | [\w-]{{1,60}}(?:\.[\w-]{{1,60}}){{0,3}}\.
            (?:com|org|net|co|io|info|biz|tv|uk|de|fr|ru|eu|us|ca|au)\b(?:/[^\s|]*)?
          | (?=[\w-]{{0,60}}[\d_-])[\w-]{{1,60}}{_EXTENSION}
        )
      | (?=[A-Z]{{0,5}}[_-]?\d)(?:
            (?:IMG|DSC[NF]?|PICT|MVI|GOPR|PXL|VID|P)[_-]?\d{{3,}}\w*
          | [A-Z]{{0,3}}\d{{5,12}}\b
          | (?!4x4\b)\d+(?:\.\d+)?\s?(?:px|cm|mm|in|")?\s?[x×]\s?\d+(?:\.\d+)?
            (?:\s?[x×]\s?\d+)?(?:\s?(?:px|pixels|cm|mm|inch(?:es)?|feet|ft)\b)?
          | {_DATE}
        )
      | (?={_FIRST_WORDS}\b)(?:
            (?:by|via|cc)\s@[\w.-]+
          | (?:on|at|from|via)\s[\w-]{{1,60}}\.(?:com|org|net|co\.uk)\b
          | (?:no|id|sku|item|ref|model|issue)[.:]?\s?\#\s?\d+\w?\b
          | on\s{_DATE}
          | (?:(?:only|just|for|from|at|under|over|less\sthan|as\slow\sas)\s){{1,3}}(?:US\s?)?[$€£]\s?\d[\d,.]*{_AMOUNT}
          | US\s?\$\s?\d[\d,.]*{_AMOUNT}
          | (?:photo|image|picture|page|slide)\s(?:\#?\d+(?:\s(?:of|/)\s\d+)?|id\s\w+)\b
          | copyright\b(?:\s?(?-i:[A-Z]|\d)[\w.'’&-]{{0,30}}){{0,5}}
          | (?:in|with)\s(?:ultra\s|full\s)?(?:u?hd|4k|8k|1080p|720p)\b(?:\s(?:resolution|quality))?
          | (?:royalty\s?-?\s?free|rights\s?-?\s?managed)(?:\s{_KIND}\b){{0,3}}
          | (?:free\s)?stock\s{_KIND}\b(?:\s{_KIND}\b){{0,3}}
          | vector\sart\sillustration\b | (?:free\s)?(?:vector\s)?clip\s?-?\s?art\b | free\sdownload\b
          | (?:free|premium)\s{_KIND}\b
          | (?<=background\s){_KIND}(?:\s{_KIND}){{0,2}}(?=\s?(?:[.,]|$))
          | (?<!\ba\s)(?<!\bthe\s)vectors?(?:\s{_KIND}){{0,2}}(?=\s?(?:[.,]|$))
          | (?:for|on)\ssale(?:\snow)?\b(?!\ssign)
          | (?:getty\simages|shutterstock|istock(?:photo)?|alamy|dreamstime|depositphotos)\b
        )
    )
  | (?=[\s:|•·»«›‹~=_\\\[\](){{}}*<>.…—–-])(?:
        (?P<hyphen>(?<=\w)\s-\s(?=\w))
      | (?P<colon>\s?:(?=\s|$))
      | (?P<separator>\s[-–—―]{{1,3}}(?=\s|$) | ^[-–—―]+\s | --+ | — | [|•·»«›‹~=_\\\[\](){{}}*<>]+ | ::+ | \s/+\s
          | \.\.[.\s]*(?!\w) | …)
    )
    """,
    re.I | re.X,
)

_BLOCKS = frozenset("br hr p div ul li ol td tr th table h1 h2 h3".split())
_HTML = _BLOCKS | frozenset("a b i u s em span img strong font small big sub sup html body script".split())
_POINTING = frozenset(
    "a an the this that these those my our your his her its their some in on at of with".split()
)
_NEW_PHRASE = _POINTING | frozenset(
    """by from to and or for near into through it they he she i you we is are was were but so which who what how as
    if not without there here when where while because do photo photos picture image stock review be may""".split()
)
"""Words that begin a new phrase after " - ". Other words may end a compound ("snow - covered")."""
_COMPOUND_STARTS = frozenset(
    """t x v e k b d s u self half high low long short full well semi multi non ex mid pre post anti co all two
    three four five six seven eight nine ten first second third one hand eye heart ice snow make still open free dry
    deep late off best most middle real light dark soft hard wide close check pop built stained award bas
    brightly heavily new""".split()
)
_COMPOUND_ENDS = frozenset(
    """up out off down through born print size style era length level class only like friendly gender final mates
    side proof free century year story storey foot mile inch door wheel sleeve neck collar back top shirt shirts
    lapse life plan air road time end theme tech chic known wood iron height weather old glass block queen key
    heeled legged made based""".split()
)
_WORD_KINDS = (COLOURS, frozenset("spring summer autumn fall winter".split()))
_COMPOUND_SUFFIX = re.compile(r"..(?:ed|ing|wn)$")

_SHOWN_BEHIND = re.compile(rf"\bbackground\s{_KIND}\b", re.I)
_BYLINE = re.compile(
    rf"""(?:(?P<of>\b{_KIND}\s)|(?P<comma>[,.]\s?)|^)\s?(?P<by>(?:{_KIND}\s)?(?:credit|courtesy(?:\sof)?|source|via|by|photo\scourtesy)\s
    (?!(?:the|a|an|his|her|its|their|this|that|\w+ing)\b)[\w'’&.-]{{1,30}}(?:\s[\w'’&.-]{{1,30}}){{0,3}}[\s.,/]*)$""",
    re.I | re.X,
)
_CAPITAL_BYLINE = re.compile(
    r"(?:[Pp]hoto(?:graph)?\s)?\b[Bb]y:?\s[A-Z]\w{0,30}(?:[\s.'’&-]{1,2}[A-Z]\w{0,30}){0,3}[\s.,/]*$"
)
_POINTED = re.compile(r"\b(?:an?|the|this)\s$", re.I)
_KIND_BYLINE = re.compile(r"\bby\s(?:person|author|photographer|(?:\w+\s)?artist)[\s.,]*$", re.I)
"""Bylines as in CC3M, which replaces a name by its kind ("person", "artist")."""
_PLACE = re.compile(
    r"\b(?:Big Ben|Lake|Mount|River|Street|Park|Bridge|Tower|Road|Beach|Bay|Sea|Ocean|House|Square)\b"
)
_PASSIVE = re.compile(
    r"(?:ed|itten|taken|iven|osen|olen|eaten|thrown|grown|blown|shown|drawn|born|done|made|built|held|led|lit|shot|hit|cut"
    r"|worn|run|caught|fed|struck)\s*$",
    re.I,
)
_CAMERA = re.compile(
    rf""",\s?(?:(?:in\s)?(?:super\s)?slow(?:\s?-?\s?)motion|zoom(?:ing)?\s(?:in|out)|(?:stabilized|handheld)\scamera[^,.]{{0,30}}
    |time\s?-?\s?lapse|(?:an?\s)?close\s?-?\s?up(?:\s(?:view|shot))?|(?:top|front|side|rear|dolly|aerial|drone)\s(?:view|shot)|{_KIND}(?:\s(?:{_KIND}|cartoon|icon|concept)){{0,2}})\s?(?=[,.]|$)
    |\sin\s(?:super\s)?slow\smotion\b|\s(?:super\s)?slow\smotion(?=\s?(?:[,.]|$))
    |,\s?(?:(?:far|second)\s)?(?:left|right|center|centre)(?:\sand\s(?:left|right|center|centre))?\s?(?:,|$)
    |\s(?:(?:with|and|includes?)\s)?clipping\spath(?:\sincluded)?\b""",
    re.I | re.X,
)
_LEAD = re.compile(
    r"""\s?(?:(?:an?\s|the\s|this\s)?(?:image|picture|photo)s?\sresults?\sfor\s?:?
    |(?:\d+\s|the\s)?(?:\w+\s)?(?:ideas?|tips?|recipes?|guide|tutorials?|inspiration|reasons|ways)\s(?:for|on|to|of)\b)""",
    re.I | re.X,
)
_CONTENTS = re.compile(
    r"(?:an?\s|the\s|this\s)?(?:image|photo|picture)\smay(?:\salso)?\scontain\s?:?\s?", re.I
)
_NEXT_CONTENT = re.compile(r"\s?(?:,\s?(?:and\s)?|\sand\s|$)", re.I)
_DOING = re.compile(r"(?:\w+ing|on|in)\b", re.I)
_SEEN = re.compile(
    r"(?:\bthat\s)?\b(?:i|we|you|one)\s(?:can\s|could\s|also\s|are\s){0,3}(?:see|seeing|find|notice|observe|looking\sat)\b",
    re.I,
)
_PERSUADES = re.compile(
    r"\b(?:helps?|makes?|allows?|tells?|gives?|takes?|asks?|surprises?|inspires?|wants?|needs?|on|for|about)\s(?:you|us)\b",
    re.I,
)
_SPEAKER = re.compile(
    r"""(?:[,;]\s?)?(?:\b(?:and|that|which|where|when|as|if|while|because|so|but|what|who|before|after|until|than|like)
    \s){0,2}(?:\b(?:lets?|makes?|allows?|helps?|tells?|gives?|shows?|takes?|asks?|at|for|to|with|of|around|behind|like)\s)?
    \b(?:i|you|we)(?:\s?['’]\w+)?\b""",
    re.I | re.X,
)
"""Mention of the writer or reader. The rest of the sentence is cut: "a beach where we stayed" becomes "a beach"."""
_ADDRESS = re.compile(
    r"""\s?(?:how\s(?:to|do|does|can|many|much|your|i|we|it)\b|why\b|what\b|where\s(?:to|do|does|can|is|are)\b|(?:here|this|that)\s?(?:['’]s|is)\s(?:how|why|what|where)\b|who\s(?:is|are|was|knew|needs)\b
    |when\s(?:is|are|do|will|you)\b|\w+\s(?:\w+\s)?(?:your|any)\b|things\s(?:to|i|you|we)\b|(?:all|everything)\s(?:i|you)\b|(?:\d+\s|the\s)?(?:\w+\s)?(?:ideas|tips|ways|reasons)\sto\b
    |(?:is|are|do|does|did|can|could|should|would|will|have|has)\s(?:you|your|i|we|this|it|there|the|these|they)\b
    |(?:please\s)?(?:check|click|buy|download|learn|discover|browse|explore|subscribe|follow|don['’]t|do\sn['’]t|let\s?['’]s
    |let\sme|find\sout|read\s(?:more|the|about|this)|see\s(?:all|more|also|the\sfull|what|how|our)|get\s(?:rid|the|your|ready
    |inspired|to)|shop\s(?:now|the|our|for)|order\s(?:now|your|online)|try\s(?:to|this|these|our)|keep\scalm
    |enjoy\s(?:the|your|our|an?)|add\sto\scart|free\sshipping|sign\sup|make\s(?:it|sure|your)|thank)\b)""",
    re.I | re.X,
)
_SENTENCE = re.compile(r"[^.!?]+(?:[.!?]+(?=\s|$))?|[.!?]")
_TIDY = re.compile(r"^[\s,.!?:;&/'-]+|[\s,:;&/-]+$|\s+(?=\s)")
_HEADLINE = re.compile(r"\s?(?!(?:an?|the|this|two|three|there)\b)\S+(?:\s\S+){0,3}\s?", re.I)
_NO_WORDS = frozenset(
    """photo photos photography photograph image images picture pictures pic pics illustration vector art artwork
    clipart graphic footage video videos wallpaper wallpapers print prints poster stock free download hd news
    gallery online blog shop store and for the a an of by on in from at to with getty adobe shutterstock istock
    istockphoto alamy dreamstime depositphotos fotolia corbis pinterest flickr youtube instagram facebook
    twitter tumblr wikipedia wikimedia commons etsy ebay amazon walmart deviantart unsplash pixabay pexels
    reddit imgur tripadvisor airbnb zazzle redbubble reuters daily mail guardian telegraph bbc com www de s""".split()
)


_PHRASES = (
    ("by", _BYLINE_START),
    ("background", _SHOWN_BEHIND),
    ("one", _SEEN),
    *(
        (word, _CAMERA)
        for word in "zoom zooming lapse close view shot left right center centre clipping".split()
    ),
)


def segments(caption: str) -> list[Segment]:
    """Return the segments of a caption to parse, in order; empty if the caption describes nothing."""
    if _is_plain(caption):
        return [Segment(caption, range(len(caption)))]
    described = []
    contents = _CONTENTS.match(caption)
    for segment in _contents(caption, contents.end()) if contents else map(_describing, _split(caption)):
        words = re.findall(r"[^\W\d_]+", segment.text.lower())
        if len(segment.text) > 1 and not _NO_WORDS.issuperset(words):
            described.append(segment)
    return described


def _is_plain(caption: str) -> bool:
    if (_ODD.search(caption) and _SIGNS.search(caption)) or _STARTS.search(caption):
        return False
    words = set(_TOKEN.findall(caption.lower()))
    return _TRIGGERS.isdisjoint(words) and not any(
        word in words and pattern.search(caption) for word, pattern in _PHRASES
    )


def _split(caption: str) -> list[Segment]:
    """Cut a caption at separators, and leave out markup, addresses, prices, file names and the like."""
    whole = range(len(caption))
    parts: list[Segment] = []
    cuts: list[Span] = []
    start = read = quotes = 0

    def close(end: int) -> None:
        part = Segment(caption[start:end], whole[start:end])
        parts.append(part.without((a - start, b - start) for a, b in cuts))
        cuts.clear()

    for mark in _MARKS.finditer(caption):
        begin, end = mark.span()
        quotes += caption.count('"', read, begin)
        read = begin
        kind = mark.lastgroup
        if kind == "name" and mark["name"].lower() not in _HTML:  # "<PERSON>" replaces names in data sets
            cuts += [(begin, begin + 1), (end - 1, end)]
        elif kind == "and":
            cuts.append((begin + 1, end))
        elif kind in ("cut", "phrase") or (kind == "name" and mark["name"].lower() not in _BLOCKS):
            cuts.append((begin, end))
        elif kind == "hashtag":
            before = caption[max(0, begin - 8) : begin].split()[-1:]
            in_sentence = before and before[0].lower() in _POINTING  # "at the #beach"
            cuts.append((begin, begin + 1 if in_sentence else end))
        elif kind == "hyphen" and _is_compound(caption, begin, end):
            cuts += [(begin, begin + 1), (end - 1, end)]
        elif quotes % 2 and '"' in caption[end : end + 60]:
            continue  # "FRAGILE / GLASS" on a box
        else:
            if kind == "colon" and _HEADLINE.fullmatch(caption[start:begin]):
                cuts[:] = [(start, begin)]  # "wedding bells : the couple at the church"
            close(begin)
            start, quotes = end, 0
    close(len(caption))
    return parts


def _contents(caption: str, start: int) -> list[Segment]:
    """Split the list in "image may contain : person , dog" at commas and "and". The list begins at index `start`."""
    spans: list[list[Span]] = []
    for separator in _NEXT_CONTENT.finditer(caption, start):
        end = separator.start()
        if len(spans) == 1 and _DOING.match(caption, start, end):
            spans[0].append((start - 1, end))  # "person , on stage": one segment, with the space before "on"
        elif end > start:
            spans.append([(start, end)])
        start = separator.end()
    return [
        Segment("".join(caption[a:b] for a, b in part), [origin for a, b in part for origin in range(a, b)])
        for part in spans
    ]


def _is_compound(caption: str, begin: int, end: int) -> bool:
    """Return whether a hyphen between spaces joins a compound ("close - up"), as in tokenized text."""
    left = re.split(r"[\s.,]", caption[max(0, begin - 30) : begin])[-1]
    right = re.split(r"[\s.,]", caption[end : end + 30])
    if (left[-1:].isdigit() and right[0].isdigit()) or not (left + right[0]).islower():
        return False
    if len(right) > 2 and right[1] == "-":  # "step - by - step"
        return True
    if re.search(r"\s-\s\w+$", caption[max(0, begin - 12) : begin]):
        return right[0] not in _NEW_PHRASE or left in _NEW_PHRASE
    if (left, right[0]) == ("go", "to"):
        return True
    if any(left in kind and right[0] in kind for kind in _WORD_KINDS):
        return True
    if right[0] in _NEW_PHRASE:
        return right[0] == "in" and left in ("built", "screened", "walk", "plug")
    return (
        left in _COMPOUND_STARTS
        or left.isdigit()
        or right[0] in _COMPOUND_ENDS
        or _COMPOUND_SUFFIX.search(right[0]) is not None
        or not is_noun(left)  # a phrase ends with a noun: "a crowded - industrial city"
    )


def _describing(segment: Segment) -> Segment:
    """Return the segment without sentences and words that do not describe the picture."""
    segment = segment.without(match.span() for match in _CAMERA.finditer(segment.text))
    cuts: list[Span] = []
    spoken = not {"i", "you", "we", "one"}.isdisjoint(_TOKEN.findall(segment.text.lower()))
    for sentence in _SENTENCE.finditer(segment.text):
        start, end = sentence.span()
        text = sentence[0]
        if text.rstrip().endswith("?") or _ADDRESS.match(text) or (spoken and _PERSUADES.search(text)):
            cuts.append((start, end))
            continue
        lead = _LEAD.match(text)
        if lead:  # "tips on how to ..." says nothing of the picture
            cuts.append((start, end if _ADDRESS.match(text, lead.end()) else start + lead.end()))
        elif spoken:
            seen = _SEEN.search(text)
            speaker = _SPEAKER.search(text)
            if seen:
                cuts.append((start + seen.start(), start + seen.end()))
            elif speaker:
                cuts.append((start + speaker.start(), end))
    segment = segment.without(cuts)
    byline = _BYLINE.search(segment.text)
    if byline:
        pointed = byline["of"] and _POINTED.search(segment.text[: byline.start("of")])
        alone = (byline["of"] or "").lower().startswith(("photo", "pic", "image")) and not pointed
        segment = segment.without([(byline.start("of" if alone else "by"), byline.end("by"))])
    else:
        byline = _CAPITAL_BYLINE.search(segment.text) or _KIND_BYLINE.search(segment.text)
        if byline and not _PLACE.search(byline[0]) and not _PASSIVE.search(segment.text[: byline.start()]):
            segment = segment.without([byline.span()])
    return segment.without(match.span() for match in _TIDY.finditer(segment.text))
