/* SPDX-License-Identifier: Apache-2.0
 *
 * A link between two devices, usually the far ends of two veth pairs, that loses, doubles, delays and reorders frames.
 * A loss here is one on the way: at the sender's own egress its TCP would take it for local congestion, and no gap
 * would come of it. Checksum and GSO state travel with the frame, so both ends keep their offloads; of such a
 * super-packet all segments share one fate.
 *
 * Lines on stdin change what happens from then on, all of it at first 0: "loss=N dup=N late=N" of a million frames,
 * "delay=N jitter=N" microseconds for each frame, "lag=N" more of them for one that is late (default 1500). Frames keep
 * their order but for jitter and those that are late. "stats" prints a line, the end of stdin is the end. What becomes
 * of the n-th frame follows from the seed; which frame is the n-th, from the traffic.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/time.h"
#include "bench.h"

#define FRAME_MAX (65536 + 128)
#define QUEUE_MAX 8192
#define BURST	  64

struct frame {
	uint64_t due, order;
	int to;
	uint32_t n;
	uint8_t b[];
};

static struct {
	int fd[2];
	uint64_t rng;
	uint32_t loss, dup, late, delay, jitter, lag;
	uint64_t frames, lost, doubled, delayed, failed;
	struct frame *heap[QUEUE_MAX]; /* the earliest first */
	unsigned n;
} wire;

static uint32_t rnd(uint32_t n)
{
	wire.rng ^= wire.rng << 13;
	wire.rng ^= wire.rng >> 7;
	wire.rng ^= wire.rng << 17;
	return n ? (uint32_t)(wire.rng >> 32) % n : 0;
}

static int device_open(const char *name)
{
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1, big = 8 << 20;

	at.sll_ifindex = (int)if_nametoindex(name);
	if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)) < 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) < 0 ||
	    bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0) {
		fprintf(stderr, "kvbench: %s: %s\n", name, strerror(errno));
		exit(1);
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof(big));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof(big));
	return fd;
}

static bool sooner(const struct frame *a, const struct frame *b)
{
	return a->due < b->due || (a->due == b->due && a->order < b->order);
}

static void heap_put(struct frame *f)
{
	unsigned i = wire.n++;

	for (; i && sooner(f, wire.heap[(i - 1) / 2]); i = (i - 1) / 2)
		wire.heap[i] = wire.heap[(i - 1) / 2];
	wire.heap[i] = f;
}

static struct frame *heap_take(void)
{
	struct frame *top = wire.heap[0], *f = wire.heap[--wire.n];
	unsigned i = 0;

	for (unsigned k = 1; k < wire.n; i = k, k = 2 * i + 1) {
		if (k + 1 < wire.n && sooner(wire.heap[k + 1], wire.heap[k]))
			k++;
		if (!sooner(wire.heap[k], f))
			break;
		wire.heap[i] = wire.heap[k];
	}
	wire.heap[i] = f;
	return top;
}

static void frame_put(int to, const uint8_t *b, uint32_t n, uint64_t due)
{
	static uint64_t order;
	struct frame *f = wire.n < QUEUE_MAX ? malloc(sizeof(*f) + n) : NULL;

	if (!f) {
		wire.failed++;
		return;
	}
	*f = (struct frame){ .due = due, .order = order++, .to = to, .n = n };
	memcpy(f->b, b, n);
	heap_put(f);
}

static void take_in(int from, uint64_t now)
{
	static uint8_t b[FRAME_MAX];

	for (unsigned i = 0; i < BURST; i++) {
		ssize_t n = recv(wire.fd[from], b, sizeof(b), 0);
		uint64_t due = now;

		if (n <= 0)
			return;
		wire.frames++;
		if (rnd(1000000) < wire.loss) {
			wire.lost++;
			continue;
		}
		due += (wire.delay + rnd(wire.jitter)) * NS_PER_US;
		if (rnd(1000000) < wire.late) {
			wire.delayed++;
			due += wire.lag * NS_PER_US;
		}
		frame_put(!from, b, (uint32_t)n, due);
		if (rnd(1000000) < wire.dup) {
			wire.doubled++;
			frame_put(!from, b, (uint32_t)n, due + rnd(wire.lag) * NS_PER_US);
		}
	}
}

static void let_out(uint64_t now)
{
	while (wire.n && wire.heap[0]->due <= now) {
		struct frame *f = heap_take();

		if (send(wire.fd[f->to], f->b, f->n, 0) < 0)
			wire.failed++;
		free(f);
	}
}

/* False at the end of stdin. */
static bool command(void)
{
	static const struct {
		const char *name;
		uint32_t *at;
	} all[] = { { "loss", &wire.loss },   { "dup", &wire.dup },	  { "late", &wire.late },
		    { "delay", &wire.delay }, { "jitter", &wire.jitter }, { "lag", &wire.lag } };
	char line[256];
	ssize_t n = read(0, line, sizeof(line) - 1); /* a line at a time, by a writer who waits for no answer */

	if (n <= 0)
		return false;
	line[n] = '\0';
	for (char *save, *word = strtok_r(line, " \n", &save); word; word = strtok_r(NULL, " \n", &save)) {
		char *value = strchr(word, '=');

		if (!strcmp(word, "stats")) {
			printf("frames=%lu lost=%lu doubled=%lu late=%lu failed=%lu\n", wire.frames, wire.lost,
			       wire.doubled, wire.delayed, wire.failed);
			fflush(stdout);
		}
		for (size_t i = 0; value && i < sizeof(all) / sizeof(*all); i++)
			if (!strncmp(word, all[i].name, (size_t)(value - word)) && !all[i].name[value - word])
				*all[i].at = (uint32_t)strtoul(value + 1, NULL, 10);
	}
	return true;
}

int wire_main(int argc, char **argv)
{
	struct pollfd p[3] = { { .events = POLLIN } };

	if (argc != 4) {
		fprintf(stderr, "usage: kvbench wire DEVICE DEVICE SEED\n");
		return 2;
	}
	wire.rng = strtoull(argv[3], NULL, 0) * 2654435761U + 1;
	wire.lag = 1500;
	for (int i = 0; i < 2; i++) {
		wire.fd[i] = device_open(argv[1 + i]);
		p[1 + i] = (struct pollfd){ .fd = wire.fd[i], .events = POLLIN };
	}
	for (;;) {
		uint64_t now = time_mono(), next = wire.n ? wire.heap[0]->due : 0;
		struct timespec ts = { 0 };

		if (next > now)
			ts = (struct timespec){ (time_t)((next - now) / NS_PER_S), (long)((next - now) % NS_PER_S) };
		if (ppoll(p, 3, wire.n ? &ts : NULL, NULL) < 0 && errno != EINTR)
			return 1;
		if (p[0].revents && !command())
			return 0;
		now = time_mono();
		take_in(0, now);
		take_in(1, now);
		let_out(now);
	}
}
