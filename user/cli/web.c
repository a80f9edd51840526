/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/web.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define TIMEOUT_MS 30000L
#define DIAL_MS	   3000L

struct web {
	CURL *easy;
	struct curl_slist *heads;
};

struct web *web_new(const char *key)
{
	struct web *w = calloc(1, sizeof(*w));
	char bearer[600];

	if (!w)
		return NULL;
	w->easy = curl_easy_init();
	w->heads = curl_slist_append(NULL, "Content-Type: application/json");
	if (key && snprintf(bearer, sizeof(bearer), "Authorization: Bearer %s", key) < (int)sizeof(bearer))
		curl_slist_append(w->heads, bearer);
	if (!w->easy || !w->heads) {
		web_free(w);
		return NULL;
	}
	return w;
}

void web_free(struct web *w)
{
	if (!w)
		return;
	curl_easy_cleanup(w->easy);
	curl_slist_free_all(w->heads);
	free(w);
}

static size_t take_body(char *p, size_t size, size_t n, void *arg)
{
	struct web_answer *a = arg;

	if (buf_len(&a->body) + size * n > WEB_BODY_MAX || buf_put(&a->body, p, size * n))
		return 0;
	return size * n;
}

static size_t take_head(char *p, size_t size, size_t n, void *arg)
{
	struct web_answer *a = arg;
	char text[64];

	if (size * n > 6 && size * n < sizeof(text) && strncasecmp(p, "date:", 5) == 0) {
		memcpy(text, p + 5, size * n - 5);
		text[size * n - 5] = '\0';
		a->date = (int64_t)curl_getdate(text, NULL);
		if (a->date < 0)
			a->date = 0;
	}
	return size * n;
}

bool web_ask(struct web *w, const char *url, const char *json, struct web_answer *ret)
{
	CURL *e = w->easy;
	CURLcode r;
	long dialed = 0;

	buf_consume(&ret->body, buf_len(&ret->body));
	ret->status = ret->date = ret->dialed = 0;
	ret->error[0] = '\0';
	curl_easy_reset(e); /* connections stay */
	curl_easy_setopt(e, CURLOPT_URL, url);
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(e, CURLOPT_PROXY, "");
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, DIAL_MS);
	curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, TIMEOUT_MS);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, ret->error);
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, w->heads);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, ret);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, take_head);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, ret);
	if (json)
		curl_easy_setopt(e, CURLOPT_POSTFIELDS, json);
	r = curl_easy_perform(e);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, NULL);
	if (r == CURLE_OK)
		curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &ret->status);
	else if (!ret->error[0])
		snprintf(ret->error, sizeof(ret->error), "%s", curl_easy_strerror(r));
	curl_easy_getinfo(e, CURLINFO_NUM_CONNECTS, &dialed);
	curl_easy_getinfo(e, CURLINFO_TOTAL_TIME, &ret->seconds);
	ret->dialed = (unsigned)dialed;
	return ret->status == 200;
}

char *web_key(const char *file)
{
	FILE *f = file ? fopen(file, "re") : NULL;
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;

	if (!f)
		return NULL;
	n = getline(&line, &cap, f);
	fclose(f);
	while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r' || line[n - 1] == ' '))
		line[--n] = '\0';
	if (n > 0)
		return line;
	free(line);
	return NULL;
}
