/* SPDX-License-Identifier: Apache-2.0 */
#include "model/template_int.h"
#include "model/unicode.h"

static const struct python_record *record(uint32_t c)
{
	unsigned lo = 0, hi = python_runs_n;

	while (hi - lo > 1) {
		unsigned mid = (lo + hi) / 2;

		*(python_runs[mid] >> 11 <= c ? &lo : &hi) = mid;
	}
	return &python_records[python_runs[lo] & 0x7ff];
}

unsigned uni_flags(uint32_t c)
{
	static const unsigned visible = U_PRINTABLE, digit = U_PRINTABLE | U_DECIMAL | U_DIGIT | U_NUMERIC;

	if (c >= 0x80)
		return record(c)->flags;
	if (c >= '0' && c <= '9')
		return digit;
	if (c >= 'A' && c <= 'Z')
		return visible | U_UPPER | U_ALPHA;
	if (c >= 'a' && c <= 'z')
		return visible | U_LOWER | U_ALPHA;
	if (c <= ' ')
		return c == ' ' ? visible | U_SPACE : (c >= 9 && c <= 13) || c >= 0x1c ? U_SPACE : 0;
	return c == 0x7f ? 0 : visible | (strchr("'.:^`", (int)c) ? U_IGNORABLE : 0);
}

unsigned uni_case(uint32_t c, char how, uint32_t out[3])
{
	int32_t d = record(c)->to[how == 'u' ? 0 : how == 'l' ? 1 : how == 't' ? 2 : 3];
	const uint32_t *s;

	if (d < PYTHON_SEVERAL) {
		out[0] = (uint32_t)((int32_t)c + d);
		return 1;
	}
	s = &python_several[d - PYTHON_SEVERAL];
	memcpy(out, s + 1, *s * sizeof(*s));
	return *s;
}
