/* SPDX-License-Identifier: Apache-2.0
 *
 * Two machines, one above the other. The line machine (event streams only) finds which bytes are data: the value of a
 * "data" field, at whatever line ends. The text machine reads these bytes, or all of a one-shot body, as JSON text:
 *
 *   FIND ──"usage"──► COLON ──':'──► OPEN ──'{'──► ITEM ◄──► STRING, STRING_ESC, WORD
 *    ▲                                               │
 *    └──────────── anything else, or the last '}' ◄──┘
 *
 * FIND needs no knowledge of the text around it. In valid JSON an unescaped quote begins or ends a string, so `"usage"`
 * with no backslash before its first quote is a whole string, and with a colon behind it is a key; the same letters in
 * generated text read \"usage\" and fail on the backslash. What is nested where does not matter: Anthropic's usage
 * stands in "message", that of the Responses API in "response", and a "usage" that is no token count has no
 * prompt_tokens.
 *
 * JSON strings hold no raw line ends, so an event whose data is spread over several lines reads as one text; the end of
 * the event, not of the line, resets the text machine.
 */
#include "http/sse.h"

#include <stddef.h>
#include <string.h>

#include "base/str.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { BOM, NAME, BLANK, DATA, SKIP };
enum { FIND, COLON, OPEN, ITEM, STRING, STRING_ESC, WORD };
enum { NONE, PROMPT, COMPLETION, CACHED, CREATED, DETAILS, CACHED_IN_DETAILS };

#define NO_MARK 0xff

void usage_watch_init(struct usage_watch *w, bool sse)
{
	*w = (struct usage_watch){ .sse = sse, .line = BOM };
}

/* --- the text machine --- */

#ifdef __SSE2__
static unsigned quote_u_mask(const char *p)
{
	__m128i quote = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)p), _mm_set1_epi8('"'));
	__m128i u = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(p + 1)), _mm_set1_epi8('u'));

	return (unsigned)_mm_movemask_epi8(_mm_and_si128(quote, u));
}
#endif

/* The first `"u` in [p, end), or a quote that is the last byte, or end. */
static const char *find_quote_u(const char *p, const char *end)
{
#ifdef __SSE2__
	const char *begin = p;
	unsigned m;

	for (; end - p >= 17; p += 16) {
		m = quote_u_mask(p);
		if (m)
			return p + __builtin_ctz(m);
	}
	/* The rest once more with some of what was seen: cheaper than byte by byte. */
	if (end - begin >= 17 && end - p > 1) {
		m = quote_u_mask(end - 17);
		if (m)
			return end - 17 + __builtin_ctz(m);
		p = end - 1;
	}
#endif
	for (; p < end; p++)
		if (*p == '"' && (p + 1 == end || p[1] == 'u'))
			break;
	return p;
}

static const char *find_usage(struct usage_watch *w, const char *p, const char *end)
{
	static const char needle[] = "\"usage\"";

	while (p < end) {
		if (w->needle == 0) {
			const char *q = find_quote_u(p, end);
			bool escaped = q > p ? q[-1] == '\\' : w->slash;

			w->slash = q == end && escaped;
			if (q == end)
				return end;
			p = q + 1;
			w->needle = !escaped;
		} else if (*p != needle[w->needle]) {
			w->needle = 0; /* and look at this byte again: it may be a quote */
		} else {
			p++;
			if (++w->needle == sizeof(needle) - 1) {
				w->needle = 0;
				w->text = COLON;
				return p;
			}
		}
	}
	return p;
}

static uint8_t which_member(const struct usage_watch *w)
{
	static const struct {
		struct str name;
		uint8_t member;
	} known[] = {
		{ { "prompt_tokens", 13 }, PROMPT },
		{ { "input_tokens", 12 }, PROMPT },
		{ { "completion_tokens", 17 }, COMPLETION },
		{ { "output_tokens", 13 }, COMPLETION },
		{ { "prompt_tokens_details", 21 }, DETAILS },
		{ { "input_tokens_details", 20 }, DETAILS },
		{ { "cache_read_input_tokens", 23 }, CACHED },
		{ { "cached_tokens", 13 }, CACHED_IN_DETAILS },
		{ { "cache_creation_input_tokens", 27 }, CREATED },
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (str_eq(known[i].name, (struct str){ w->key, w->key_len }))
			return known[i].member;
	return NONE;
}

static void take_number(struct usage_watch *w)
{
	uint32_t n = w->number > UINT32_MAX ? UINT32_MAX : (uint32_t)w->number;
	unsigned m = NONE;

	if (w->depth == 1 && w->member >= PROMPT && w->member <= CREATED)
		m = w->member;
	else if (w->depth == 2 && w->parent == DETAILS && w->member == CACHED_IN_DETAILS)
		m = CACHED;
	if (m == NONE || !w->integer)
		return;
	w->value[m - PROMPT] = n;
	w->have |= (uint8_t)(1u << m);
}

static void take_usage(struct usage_watch *w)
{
	struct usage *u = &w->usage;

	/* The last object of an Anthropic stream may have only what it adds: the output. */
	if (!(w->have & 1u << PROMPT) && !u->seen)
		return;
	u->seen = true;
	if (w->have & 1u << PROMPT)
		u->prompt = w->value[PROMPT - PROMPT];
	if (w->have & 1u << COMPLETION)
		u->completion = w->value[COMPLETION - PROMPT];
	if (w->have & 1u << CACHED) {
		u->cached = w->value[CACHED - PROMPT];
		u->cached_known = true;
	}
	if (w->have & 1u << CREATED)
		u->created = w->value[CREATED - PROMPT];
}

/* One byte between the tokens of the usage object. */
static void item(struct usage_watch *w, char c)
{
	switch (c) {
	case '"':
		w->key_len = 0;
		w->text = STRING;
		break;
	case ':':
		w->member = which_member(w);
		break;
	case ',':
		w->member = NONE;
		break;
	case '{':
	case '[':
		if (w->depth == 1)
			w->parent = w->member;
		w->member = NONE;
		w->text = ++w->depth == UINT8_MAX ? FIND : ITEM;
		break;
	case '}':
	case ']':
		w->member = NONE;
		if (--w->depth == 0) {
			w->text = FIND;
			take_usage(w);
		}
		break;
	case ' ':
	case '\t':
	case '\r':
	case '\n':
		break;
	default:
		w->integer = c >= '0' && c <= '9';
		w->number = w->integer ? (unsigned)(c - '0') : 0;
		w->text = WORD;
	}
}

/* One byte behind "usage". False if it is to be looked at again in the state that is now. */
static bool text_step(struct usage_watch *w, char c)
{
	bool blank = c == ' ' || c == '\t' || c == '\r' || c == '\n';

	switch (w->text) {
	case COLON:
	case OPEN:
		if (blank)
			return true;
		if (c == (w->text == COLON ? ':' : '{')) {
			w->depth = 1;
			w->have = 0;
			w->member = w->parent = NONE;
			w->text++;
			return true;
		}
		w->text = FIND;
		return false;
	case STRING_ESC:
		w->text = STRING;
		w->key_len = sizeof(w->key); /* no key of interest is spelt with escapes, none is so long */
		return true;
	case WORD:
		if (blank || c == ',' || c == '}' || c == ']') {
			take_number(w);
			w->member = NONE;
			w->text = ITEM;
			return false;
		}
		if (c < '0' || c > '9')
			w->integer = false;
		else if (w->number <= UINT32_MAX)
			w->number = w->number * 10 + (unsigned)(c - '0');
		return true;
	default:
		item(w, c);
		return true;
	}
}

/* In a string of the usage object, to behind its end. */
static const char *string_feed(struct usage_watch *w, const char *p, const char *end)
{
	unsigned n = w->key_len;

	for (; p < end && *p != '"' && *p != '\\'; p++)
		if (n < sizeof(w->key))
			w->key[n++] = *p;
	w->key_len = (uint8_t)n;
	if (p < end)
		w->text = *p++ == '"' ? ITEM : STRING_ESC;
	return p;
}

static void text_feed(struct usage_watch *w, const char *p, const char *end)
{
	while (p < end) {
		if (w->text == FIND)
			p = find_usage(w, p, end);
		else if (w->text == STRING)
			p = string_feed(w, p, end);
		else if (text_step(w, *p))
			p++;
	}
}

static void text_reset(struct usage_watch *w)
{
	w->text = FIND;
	w->needle = 0;
	w->slash = false;
}

/* --- the line machine --- */

static void line_end(struct usage_watch *w, char c)
{
	w->cr = c == '\r';
	if (w->line == NAME && w->name == 0) {
		w->events += w->data;
		w->data = false;
		text_reset(w);
	} else if (w->line == NAME && w->name == 4) {
		w->data = true; /* a field without a colon has an empty value */
	} else if (w->line == DATA) {
		w->done |= w->mark == 6;
		text_feed(w, "\n", &"\n"[1]);
	}
	w->line = NAME;
	w->name = 0;
}

/* One byte of a line whose kind is not known yet. */
static void line_step(struct usage_watch *w, char c)
{
	if (w->line == BOM) {
		if (c == "\xef\xbb\xbf"[w->name]) {
			if (++w->name == 3) {
				w->line = NAME;
				w->name = 0;
			}
			return;
		}
		w->line = w->name ? SKIP : NAME;
		if (w->line == SKIP)
			return;
	}
	if (w->name < 4 && c == "data"[w->name])
		w->name++;
	else if (w->name == 4 && c == ':')
		w->line = BLANK;
	else
		w->line = SKIP;
	if (w->line == BLANK) {
		w->data = true;
		w->mark = 0;
	}
}

static void data_feed(struct usage_watch *w, const char *p, const char *end)
{
	for (const char *q = p; q < end && w->mark != NO_MARK; q++)
		w->mark = w->mark < 6 && *q == "[DONE]"[w->mark] ? (uint8_t)(w->mark + 1) : NO_MARK;
	text_feed(w, p, end);
}

static void stream_feed(struct usage_watch *w, const char *p, const char *end)
{
	const char *lf = NULL;

	while (p < end) {
		const char *eol, *cr;

		if (w->cr) {
			w->cr = false;
			if (*p == '\n') {
				p++;
				continue;
			}
		}
		if (w->line == BLANK) {
			w->line = DATA;
			if (*p == ' ') {
				p++;
				continue;
			}
		}
		if (w->line < BLANK) {
			if (*p == '\n' || *p == '\r')
				line_end(w, *p);
			else
				line_step(w, *p);
			p++;
			continue;
		}
		/* The next LF is sought once, however many lines end by CR before it. */
		if (!lf || lf < p) {
			lf = memchr(p, '\n', (size_t)(end - p));
			lf = lf ? lf : end;
		}
		cr = memchr(p, '\r', (size_t)(lf - p));
		eol = cr ? cr : lf;
		if (w->line == DATA)
			data_feed(w, p, eol);
		if (eol < end)
			line_end(w, *eol++);
		p = eol;
	}
}

void usage_watch_feed(struct usage_watch *w, const char *p, uint64_t n)
{
	if (n == 0)
		return;
	if (w->sse)
		stream_feed(w, p, p + n);
	else
		text_feed(w, p, p + n);
}
