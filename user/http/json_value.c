/* SPDX-License-Identifier: Apache-2.0
 *
 * What a token's text means: strings without their escapes, integers.
 */
#include <errno.h>

#include "http/json.h"
#include "http/json_scan.h"

/* The escape of <len> bytes at <p>, into <out> (4 bytes): how many it became; *ret_used, what was read. 0: a surrogate
 * without its other half; -1: its other half may lie behind <end>. */
static int decode(const char *p, const char *end, int len, char *out, int *ret_used)
{
	static const char expected[] = "\\u";
	unsigned c, low = 0;
	int n;

	*ret_used = len;
	if (len == 2) {
		out[0] = json_escape[(unsigned char)p[1]];
		return 1;
	}
	c = hex4(p + 2);
	if (c < 0xd800 || c > 0xdfff)
		return (int)utf8_put(out, c);
	if (c >= 0xdc00)
		return 0;
	p += 6;
	for (n = 0; n < 2; n++) {
		if (p + n == end)
			return -1;
		if (p[n] != expected[n])
			return 0;
	}
	n = escape_len(p, end);
	low = n == 6 ? hex4(p + 2) : 0;
	if (n == 0)
		return -1;
	if (low < 0xdc00 || low > 0xdfff)
		return 0;
	*ret_used = 12;
	return (int)utf8_put(out, 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00));
}

enum unescape json_unescape_run(const char **pp, const char *stop, const char *end, char **to, uint64_t *high)
{
	const char *p = *pp;
	enum unescape r = UNESCAPE_STOP;

	while (p < stop) {
		int len, used, n;

		p = json_scan.copy(p, stop, to, high);
		if (p >= stop)
			break;
		len = *p == '\\' ? escape_len(p, end) : -1;
		if (len <= 0) {
			r = *p == '"' ? UNESCAPE_QUOTE : len ? UNESCAPE_BAD : UNESCAPE_CUT;
			break;
		}
		n = decode(p, end, len, *to, &used);
		if (n <= 0) {
			r = n ? UNESCAPE_CUT : UNESCAPE_LONE;
			break;
		}
		*to += n;
		p += used;
	}
	*pp = p;
	return r;
}

bool json_str_is(const struct json_val *v, struct str lit)
{
	const char *p = v->raw.p, *end = p + v->raw.n;

	if (v->kind != JSON_T_STR && v->kind != JSON_T_KEY)
		return false;
	if (!v->escaped)
		return str_eq(v->raw, lit);
	while (p < end) {
		char c[4] = { *p };
		int n = 1, used = 1;

		if (*p == '\\')
			n = decode(p, end, escape_len(p, end), c, &used);
		p += used;
		if (n <= 0 || (size_t)n > lit.n || memcmp(lit.p, c, (size_t)n) != 0)
			return false;
		lit.p += n;
		lit.n -= (size_t)n;
	}
	return lit.n == 0;
}

int json_unescape(const struct json_val *v, struct buf *out)
{
	const char *p = v->raw.p, *end = p + v->raw.n;
	uint64_t high = 0;
	char *to, *start;

	if (v->kind != JSON_T_STR && v->kind != JSON_T_KEY)
		return -EINVAL;
	if (!v->escaped)
		return buf_put(out, p, v->raw.n);
	/* No escape is shorter than what it stands for. */
	start = to = buf_room(out, v->raw.n + JSON_SLACK);
	if (!to)
		return -ENOMEM;
	if (json_unescape_run(&p, end, end, &to, &high) != UNESCAPE_STOP)
		return -EILSEQ;
	buf_commit(out, (size_t)(to - start));
	return 0;
}

int json_u64(const struct json_val *v, uint64_t *ret)
{
	return v->kind == JSON_T_NUM ? str_u64(v->raw, ret) : -EINVAL;
}
