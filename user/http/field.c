/* SPDX-License-Identifier: Apache-2.0 */
#include "http/http.h"

struct str http_header_get(const struct http_head *h, struct str name)
{
	for (unsigned i = 0; i < h->nheaders; i++)
		if (str_ieq(h->headers[i].name, name))
			return h->headers[i].value;
	return (struct str){ 0 };
}

bool http_list_has(struct str value, struct str token)
{
	while (value.n && token.n) {
		const char *comma = memchr(value.p, ',', value.n);
		size_t n = comma ? (size_t)(comma - value.p) : value.n;

		if (str_ieq(str_trim((struct str){ value.p, n }), token))
			return true;
		if (!comma)
			break;
		value.p += n + 1;
		value.n -= n + 1;
	}
	return false;
}

bool http_hop_by_hop(const struct http_head *h, struct str name)
{
	static const struct str fixed[] = {
		/* by length */
		{ "te", 2 },
		{ "trailer", 7 },
		{ "upgrade", 7 },
		{ "connection", 10 },
		{ "keep-alive", 10 },
		{ "proxy-connection", 16 },
		{ "transfer-encoding", 17 },
		{ "proxy-authenticate", 18 },
		{ "proxy-authorization", 19 },
	};

	for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]) && fixed[i].n <= name.n; i++)
		if (str_ieq(fixed[i], name))
			return true;
	if (!h->connection)
		return false;
	/* Without these a message changes its meaning; naming them in Connection must not make a proxy lose them. */
	if (str_ieq(name, STR("content-length")) || str_ieq(name, STR("host")))
		return false;
	for (unsigned i = 0; i < h->nheaders; i++)
		if (str_ieq(h->headers[i].name, STR("connection")) && http_list_has(h->headers[i].value, name))
			return true;
	return false;
}
