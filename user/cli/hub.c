/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection that breaks costs what had not come: the next try asks from there on (Range), as long as each try brings
 * something. The part's name has the checksum of what it will be, so a file that has changed meanwhile is begun anew.
 * It gets its own name when its checksum is right, and never before.
 */
#include "cli/hub.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sha1.h"
#include "base/sha256.h"

#define TRIES	 5 /* in a row that bring nothing */
#define SLOW_S	 30L
#define LIST_MAX (16u << 20)

struct transfer {
	struct hub *h;
	struct buf *body; /* or */
	int fd;
	uint64_t from, have, size;
	long status;
	bool write_failed;
	void (*progress)(void *arg, uint64_t have, uint64_t size);
	void *arg;
};

int hub_open(struct hub *h)
{
	if (strncmp(h->endpoint, "https://", 8) != 0) {
		snprintf(h->error, sizeof(h->error), "%.200s is no https:// address", h->endpoint);
		return -EINVAL;
	}
	h->easy = curl_easy_init();
	return h->easy ? 0 : -ENOMEM;
}

void hub_close(struct hub *h)
{
	curl_easy_cleanup(h->easy);
	h->easy = NULL;
}

static size_t take(char *p, size_t size, size_t n, void *arg)
{
	struct transfer *t = arg;
	size_t len = size * n;

	curl_easy_getinfo(t->h->easy, CURLINFO_RESPONSE_CODE, &t->status);
	if (t->status >= 300)
		return len; /* an error's text, or a redirect's */
	if (t->body)
		return buf_len(t->body) + len <= LIST_MAX && buf_put(t->body, p, len) == 0 ? len : 0;
	if (t->status == 200 && t->from) { /* the server does not go on, it begins anew */
		t->from = t->have = 0;
		if (ftruncate(t->fd, 0) || lseek(t->fd, 0, SEEK_SET))
			t->write_failed = true;
	}
	if (t->have + len > t->size)
		return 0; /* it is not what was listed, and might not end */
	for (size_t at = 0; at < len && !t->write_failed;) {
		ssize_t k = write(t->fd, p + at, len - at);

		t->write_failed = k < 0 && errno != EINTR;
		at += k > 0 ? (size_t)k : 0;
	}
	t->have += len;
	if (t->progress)
		t->progress(t->arg, t->have, t->size);
	return t->write_failed ? 0 : len;
}

static struct curl_slist *heads_of(const struct hub *h)
{
	char bearer[600];

	if (!h->token || snprintf(bearer, sizeof(bearer), "Authorization: Bearer %s", h->token) >= (int)sizeof(bearer))
		return NULL;
	return curl_slist_append(NULL, bearer);
}

/* 0: a 200 or 206 has come whole; -EAGAIN: it broke off; else as hub_list. */
static int go(struct transfer *t, const char *url)
{
	struct hub *h = t->h;
	struct curl_slist *heads = heads_of(h);
	char error[CURL_ERROR_SIZE] = "", range[32];
	CURL *e = h->easy;
	CURLcode r;

	curl_easy_reset(e);
	curl_easy_setopt(e, CURLOPT_URL, url);
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "https");
	curl_easy_setopt(e, CURLOPT_REDIR_PROTOCOLS_STR, "https");
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 1L);
	curl_easy_setopt(e, CURLOPT_MAXREDIRS, 5L);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT, 15L);
	curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, SLOW_S);
	curl_easy_setopt(e, CURLOPT_USERAGENT, "kvsteer");
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, error);
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, heads); /* not sent to another host */
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, take);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, t);
	if (h->ca_file)
		curl_easy_setopt(e, CURLOPT_CAINFO, h->ca_file);
	if (t->from) {
		snprintf(range, sizeof(range), "%llu-", (unsigned long long)t->from);
		curl_easy_setopt(e, CURLOPT_RANGE, range);
	}
	r = curl_easy_perform(e);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, NULL);
	curl_slist_free_all(heads);
	curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &t->status);
	if (t->write_failed) {
		snprintf(h->error, sizeof(h->error), "it cannot be written: %s", strerror(errno));
		return -EIO;
	}
	if (t->status == 401 || t->status == 403)
		snprintf(h->error, sizeof(h->error), "%.200s refuses it (%ld): %s", h->endpoint, t->status,
			 h->token ? "may this HF_TOKEN read the model, and have its terms been accepted?"
				  : "set HF_TOKEN to a token that may read the model");
	else if (t->status == 404)
		snprintf(h->error, sizeof(h->error), "%.300s is not there", url);
	else if (r != CURLE_OK)
		snprintf(h->error, sizeof(h->error), "%.200s: %s", h->endpoint,
			 error[0] ? error : curl_easy_strerror(r));
	else if (t->status >= 300)
		snprintf(h->error, sizeof(h->error), "%.300s says %ld", url, t->status);
	if (t->status == 401 || t->status == 403)
		return -EACCES;
	if (t->status == 404)
		return -ENOENT;
	if (r == CURLE_PEER_FAILED_VERIFICATION || r == CURLE_SSL_CACERT_BADFILE || r == CURLE_COULDNT_RESOLVE_HOST)
		return -EIO; /* will not become better */
	return r != CURLE_OK || t->status >= 500 || t->status == 429 ? -EAGAIN : t->status >= 300 ? -EIO : 0;
}

int hub_list(struct hub *h, const char *repo, const char *revision, struct buf *ret_json)
{
	char url[1024];
	int r = -EAGAIN;

	snprintf(url, sizeof(url), "%.300s/api/models/%.200s/revision/%.100s?blobs=true", h->endpoint, repo, revision);
	for (unsigned i = 0; i < TRIES && r == -EAGAIN; i++) {
		struct transfer t = { .h = h, .body = ret_json, .fd = -1 };

		buf_consume(ret_json, buf_len(ret_json));
		r = go(&t, url);
	}
	return r == -EAGAIN ? -EIO : r;
}

static void hex(const uint8_t *p, size_t n, char *out)
{
	for (size_t i = 0; i < n; i++)
		sprintf(out + 2 * i, "%02x", p[i]);
}

bool hub_has(const char *path, const struct hub_file *want)
{
	bool git = strlen(want->sum) == 40;
	struct sha256 a;
	struct sha1 b;
	uint8_t sum[32];
	char got[65], chunk[65536], head[32];
	struct stat st;
	FILE *f = fopen(path, "re");
	size_t n;
	bool ok;

	if (!f || fstat(fileno(f), &st) || (uint64_t)st.st_size != want->size) {
		if (f)
			fclose(f);
		return false;
	}
	sha256_init(&a);
	sha1_init(&b);
	n = (size_t)snprintf(head, sizeof(head), "blob %lld", (long long)st.st_size);
	sha1_update(&b, head, n + 1); /* with its NUL */
	while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0)
		if (git)
			sha1_update(&b, chunk, n);
		else
			sha256_update(&a, chunk, n);
	ok = !ferror(f);
	fclose(f);
	if (git)
		sha1_final(&b, sum);
	else
		sha256_final(&a, sum);
	hex(sum, git ? 20 : 32, got);
	return ok && strcmp(got, want->sum) == 0;
}

static int fetch_part(struct transfer *t, const char *url)
{
	int r = -EAGAIN;

	for (unsigned idle = 0; idle < TRIES && r == -EAGAIN; idle++) {
		struct stat st;
		uint64_t before;

		if (fstat(t->fd, &st) || lseek(t->fd, 0, SEEK_END) < 0)
			return -errno;
		before = t->from = t->have = (uint64_t)st.st_size;
		if (t->from >= t->size)
			return 0;
		if (idle)
			usleep(200000u << idle);
		r = go(t, url);
		if (r == -EAGAIN && t->have > before)
			idle = 0;
		if (r == 0 && t->have < t->size)
			r = -EAGAIN; /* closed early, politely */
	}
	return r == -EAGAIN ? -EIO : r;
}

int hub_fetch(struct hub *h, const char *repo, const char *revision, const char *name, const struct hub_file *want,
	      const char *path, void (*progress)(void *arg, uint64_t have, uint64_t size), void *arg)
{
	struct transfer t = { .h = h, .size = want->size, .progress = progress, .arg = arg };
	char url[1024], part[4400];
	int r;

	snprintf(url, sizeof(url), "%.300s/%.200s/resolve/%.100s/%.200s", h->endpoint, repo, revision, name);
	snprintf(part, sizeof(part), "%.4096s.%s.part", path, want->sum);
	t.fd = open(part, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (t.fd < 0) {
		r = -errno;
		snprintf(h->error, sizeof(h->error), "%.300s: %s", part, strerror(-r));
		return r;
	}
	r = fetch_part(&t, url);
	close(t.fd);
	if (r)
		return r;
	if (!hub_has(part, want)) {
		unlink(part);
		snprintf(h->error, sizeof(h->error), "what came as %.200s has another checksum than %s: thrown away",
			 name, want->sum);
		return -EBADMSG;
	}
	if (rename(part, path)) {
		r = -errno;
		snprintf(h->error, sizeof(h->error), "%.300s: %s", path, strerror(-r));
		return r;
	}
	return 0;
}
