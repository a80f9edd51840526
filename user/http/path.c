/* SPDX-License-Identifier: Apache-2.0 */
#include "http/http.h"

#include <errno.h>

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* out[0..n) ends with a whole segment: drop it if it is ".", it and the one before it if it is "..". What is left then
 * ends with the "/" that stood before. */
static size_t fold_dots(const char *out, size_t n)
{
	if (n >= 2 && out[n - 1] == '.' && out[n - 2] == '/')
		return n - 1;
	if (n < 3 || out[n - 1] != '.' || out[n - 2] != '.' || out[n - 3] != '/')
		return n;
	n -= 3;
	while (n > 0 && out[n - 1] != '/')
		n--;
	return n ? n : 1; /* above the root is the root */
}

ssize_t http_path(struct str target, char *out, size_t cap)
{
	size_t n = 0;

	if (target.n == 0 || target.p[0] != '/')
		return -EBADMSG;
	for (size_t i = 0; i < target.n && target.p[i] != '?'; i++) {
		unsigned char c = (unsigned char)target.p[i];

		if (c == '#')
			return -EBADMSG;
		if (c == '%') {
			int hi = i + 2 < target.n ? hex(target.p[i + 1]) : -1;
			int lo = i + 2 < target.n ? hex(target.p[i + 2]) : -1;

			if (hi < 0 || lo < 0)
				return -EBADMSG;
			c = (unsigned char)(hi << 4 | lo);
			i += 2;
		}
		if (c < 0x20 || c == 0x7f)
			return -EBADMSG;
		if (c == '/') {
			n = fold_dots(out, n);
			if (n && out[n - 1] == '/')
				continue;
		}
		if (n + 1 >= cap)
			return -ENAMETOOLONG;
		out[n++] = (char)c;
	}
	n = fold_dots(out, n);
	out[n] = '\0';
	return (ssize_t)n;
}
