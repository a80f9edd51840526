/* SPDX-License-Identifier: Apache-2.0
 * The rule tables of the splice, row by row: a state, a packet, what becomes of both. Each row runs over IPv4 and IPv6.
 */
#include "base/time.h"
#include "splice_packet.h"

#define NONE   0x10000 /* expected window 0 */
#define EV(x)  (1U << KVS_EV_##x)
#define ROW(x) .row = KVS_ROW_##x
#define SOCK_C (CS - OFC) /* the split in C's socket's numbers */
#define SOCK_U (US - OFU)

struct row {
	const char *name;
	enum hook_under_test hook;
	enum kvs_state state;
	enum kvs_framing framing;
	uint32_t flags; /* of the splice */
	void (*tweak)(struct kvs_splice *);
	struct packet in;
	/* what is to come of it; 0: as it came, or for a packet to a peer as its row says */
	enum kvs_row row;
	uint32_t seq, ack, win;
	uint8_t tcp_flags;
	bool trimmed, copied;
	int sacks; /* −1: options are NOPs */
	struct sack sack[3];
	enum kvs_state after; /* FREE: the same */
	uint32_t set;	      /* flags that the splice has then, besides those of before */
	unsigned events;
	int only; /* family */
	void (*check)(const struct kvs_splice *);
};

static void cap_64k(struct kvs_splice *sp)
{
	sp->cap = 65536;
}
static void pod_unscaled(struct kvs_splice *sp)
{
	sp->u.ws_loc = 0;
}
static void owing(struct kvs_splice *sp)
{
	sp->c.owe = 1;
}
static void at_split(struct kvs_splice *sp)
{
	sp->c.snd_una = CS;
	sp->u_una = US;
}
static void head_unacked(struct kvs_splice *sp)
{
	sp->c.snd_una = CS - 10;
	sp->u_una = US;
	sp->c.owe = 1;
}
static void all_acked(struct kvs_splice *sp)
{
	sp->c.snd_una = CS + FWD;
}
static void not_read(struct kvs_splice *sp)
{
	sp->u.del = US - 1;
}
static void pod_fin_seen(struct kvs_splice *sp)
{
	sp->u.rcv_nxt = US + 1;
}
static void gap(struct kvs_splice *sp)
{
	sp->wpos = US + FWD - 100;
}
static void last_chunk(struct kvs_splice *sp)
{
	sp->walk = KVS_WALK_SIZE_FIRST;
	sp->left = 0;
}
static void many_ranges(struct kvs_splice *sp)
{
	sp->ranges_n = KVS_STORE_RANGES;
	for (uint32_t i = 0; i < KVS_STORE_RANGES; i++)
		sp->ranges[i] = (struct kvs_range){ US + 2000 + i * 1000, US + 2100 + i * 1000 };
}
static void far(struct kvs_splice *sp)
{
	sp->fwd_end = sp->wpos = US + 0x50000100;
	sp->c.snd_una = CS + 0x50000000;
	sp->u_una = US + 0x50000000;
}
static void next_head(struct kvs_splice *sp)
{
	sp->c.snd_end = CS + END + 90;
}
static void orphan_cut_again(struct kvs_splice *sp)
{
	sp->flags |= KVS_F_C_FIN;
}

static void is_owing(const struct kvs_splice *sp)
{
	assert_int_equal(sp->c.owe, 1);
}
static void is_not_owing(const struct kvs_splice *sp)
{
	assert_int_equal(sp->c.owe, 0);
}
static void is_rebased(const struct kvs_splice *sp)
{
	assert_int_equal(sp->c_split, CS + 0x20000000);
	assert_int_equal(sp->u_split, US + 0x20000000);
	assert_int_equal(sp->c.off, OFC + 0x20000000);
	assert_int_equal(sp->u.off, OFU + 0x20000000);
}
static void is_stored(const struct kvs_splice *sp)
{
	assert_int_equal(sp->ranges_n, 1);
	assert_int_equal(sp->ranges[0].from, US + FWD + 100);
	assert_int_equal(sp->ranges[0].to, US + FWD + 150);
	assert_true(sp->store > 0);
	assert_int_equal(sp->wpos, US + FWD);
}
static void is_counted(const struct kvs_splice *sp)
{
	assert_int_equal(sp->fwd_end, US + FWD + 50);
	assert_int_equal(sp->bytes, FWD + 50);
	assert_int_equal(sp->segments, 1);
	assert_true(sp->gap_max > 0);
}
static void una_is_kept(const struct kvs_splice *sp)
{
	assert_int_equal(sp->u_una, US + UNA);
}
static void dropped_one(const struct kvs_splice *sp)
{
	assert_int_equal(sp->dropped, 1);
}
static void is_active(const struct kvs_splice *sp)
{
	assert_int_equal(sp->u_split, US);
	assert_int_equal(sp->fwd_end, US + 50);
	assert_int_equal(sp->bytes, 50);
}

#define E KVS_F_END
#define O KVS_F_ORPHAN

static const struct row rows[] = {
	/* client ingress */
	{ "unbound: acknowledgement shifted", CI, KVS_FREE, .in = { ACK, CR, CS, 10 }, ROW(CI_SHIFT), .ack = SOCK_C },
	{ "unbound: SACK shifted", CI, KVS_FREE,
	  .in = { ACK, CR, CS - 99, 10, .sacks = 1, .sack = { { CS - 50, CS } } }, ROW(CI_SHIFT), .ack = SOCK_C - 99,
	  .sacks = 1, .sack = { { SOCK_C - 50, SOCK_C } } },
	{ "relay: acknowledgement shifted", CI, KVS_RELAY, .in = { ACK | PSH, CR, CS, 10, 30 }, ROW(CI_SHIFT),
	  .ack = SOCK_C },
	{ "armed: acknowledgement shifted", CI, KVS_ARMED, .in = { ACK, CR, CS - 5, 10 }, ROW(CI_SHIFT),
	  .ack = SOCK_C - 5 },
	{ "relay: FIN noted", CI, KVS_RELAY, .in = { ACK | FIN, CR, CS, 10 }, ROW(CI_SHIFT), .ack = SOCK_C,
	  .set = KVS_F_CLIENT },
	{ "acknowledges diverted bytes", CI, KVS_ACTIVE, .in = { ACK, CR, CS + 700, 100 }, ROW(CI_ACK), .seq = UE,
	  .ack = US + 700, .win = 25 },
	{ "acknowledges all", CI, KVS_ACTIVE, .in = { ACK, CR, CS + FWD, 100 }, ROW(CI_ACK), .seq = UE, .ack = US + FWD,
	  .win = 25 },
	{ "window capped", CI, KVS_ACTIVE, KVS_CHUNKED, .tweak = cap_64k, .in = { ACK, CR, CS + 700, 60000 },
	  ROW(CI_ACK), .seq = UE, .ack = US + 700, .win = 128 },
	{ "window larger than the pod's scale can say", CI, KVS_ACTIVE, .tweak = pod_unscaled,
	  .in = { ACK, CR, CS + 700, 60000 }, ROW(CI_ACK), .seq = UE, .ack = US + 700, .win = 65535 },
	{ "window closed", CI, KVS_ACTIVE, .in = { ACK, CR, CS + 700, 0 }, ROW(CI_ACK), .seq = UE, .ack = US + 700,
	  .win = NONE },
	{ "ECN echo stays here", CI, KVS_ACTIVE, .in = { ACK | ECE, CR, CS + 700, 100 }, ROW(CI_ACK), .seq = UE,
	  .ack = US + 700, .win = 25, .tcp_flags = ACK },
	{ "padded to the least frame", CI, KVS_ACTIVE, .in = { ACK, CR, CS + 700, 100, .padding = 6 }, ROW(CI_ACK),
	  .seq = UE, .ack = US + 700, .win = 25 },
	{ "SACK to the pod, clamped", CI, KVS_ACTIVE,
	  .in = { ACK, CR, CS + 500, 100, .sacks = 2, .sack = { { CS + 600, CS + 800 }, { CS - 10, CS + 20 } } },
	  ROW(CI_ACK), .seq = UE, .ack = US + 500, .win = 25, .sacks = 2,
	  .sack = { { US + 600, US + 800 }, { US, US + 20 } } },
	{ "SACK that becomes empty goes", CI, KVS_ACTIVE,
	  .in = { ACK, CR, CS + 500, 100, .sacks = 2, .sack = { { CS - 20, CS }, { CS + 600, CS + 800 } } },
	  ROW(CI_ACK), .seq = UE, .ack = US + 500, .win = 25, .sacks = 1, .sack = { { US + 600, US + 800 } } },
	{ "other options become NOPs", CI, KVS_ACTIVE, .in = { ACK, CR, CS + 700, 100, .other_options = true },
	  ROW(CI_ACK), .seq = UE, .ack = US + 700, .win = 25, .sacks = -1 },
	{ "acknowledges up to the split", CI, KVS_ACTIVE, .tweak = at_split, .in = { ACK, CR, CS, 100 }, ROW(CI_EDGE),
	  .copied = true, .ack = SOCK_C, .check = is_not_owing },
	{ "SACK beyond the split is nothing to the socket", CI, KVS_ACTIVE, .tweak = at_split,
	  .in = { ACK, CR, CS, 100, .sacks = 1, .sack = { { CS + 100, CS + 200 } } }, ROW(CI_EDGE), .copied = true,
	  .ack = SOCK_C, .sacks = -1 },
	{ "acknowledges less than the split", CI, KVS_ACTIVE, .tweak = head_unacked, .in = { ACK, CR, CS - 5, 100 },
	  ROW(CI_OLD), .ack = SOCK_C - 5, .check = is_owing },
	{ "request in mid-response", CI, KVS_ACTIVE, .in = { ACK | PSH, CR, CS + 500, 100, 30 }, ROW(CI_DATA),
	  .copied = true, .ack = SOCK_C },
	{ "FIN of the client", CI, KVS_ACTIVE, .in = { ACK | FIN, CR, CS + 500, 100 }, ROW(CI_DATA), .copied = true,
	  .ack = SOCK_C, .set = KVS_F_CLIENT },
	{ "keep-alive of the client", CI, KVS_ACTIVE, .in = { ACK, CR - 1, CS + 500, 100 }, ROW(CI_DATA),
	  .copied = true, .ack = SOCK_C },
	{ "orphan: keep-alive asks the pod", CI, KVS_ACTIVE, .flags = O,
	  .in = { ACK, CR - 1, CS + 500, 100, 1, .mark = MARK_POD }, ROW(CI_COPY), .seq = UE - 1, .ack = US + 500,
	  .win = 25, .trimmed = true },
	{ "orphan: a request asks nothing", CI, KVS_ACTIVE, .flags = O,
	  .in = { ACK, CR - 1, CS + 500, 100, 2, .mark = MARK_POD }, ROW(CI_COPY), .seq = UE, .ack = US + 500,
	  .win = 25, .trimmed = true },
	{ "the socket waits for an acknowledgement", CI, KVS_ACTIVE, .tweak = owing, .in = { ACK, CR, CS + 500, 100 },
	  ROW(CI_OWED), .copied = true, .ack = SOCK_C, .check = is_not_owing },
	{ "reset of the client", CI, KVS_ACTIVE, .in = { RST, CR, 0, 0 }, ROW(CI_RST), .copied = true,
	  .set = KVS_F_CLIENT },
	{ "reset that acknowledges the end", CI, KVS_ENDED, KVS_LENGTH, E, .in = { RST | ACK, CR, CS + END, 0 },
	  ROW(CI_LAST), .copied = true, .ack = SOCK_C, .after = KVS_DONE, .set = KVS_F_CLIENT, .events = EV(DONE) },
	{ "reset that acknowledges less", CI, KVS_ENDED, KVS_LENGTH, E, .in = { RST | ACK, CR, CS + END - 1, 0 },
	  ROW(CI_RST), .copied = true, .ack = SOCK_C, .set = KVS_F_CLIENT },
	{ "reset with another number", CI, KVS_ACTIVE, .in = { RST | ACK, CR + 5, CS + 500, 0 }, ROW(CI_RST_STRAY),
	  .ack = SOCK_C },
	{ "acknowledges what was never sent", CI, KVS_ACTIVE, .in = { ACK, CR, CS + FWD + 1, 100 }, ROW(CI_UNSENT),
	  .check = una_is_kept },
	{ "no ACK flag", CI, KVS_ACTIVE, .in = { PSH, CR, 0x12345, 100, 4 }, ROW(CI_NOACK) },
	{ "beyond 1 GB numbers move on", CI, KVS_ACTIVE, .tweak = far, .in = { ACK, CR, CS + 0x50000050, 100 },
	  ROW(CI_ACK), .seq = UE, .ack = US + 0x50000050, .win = 25, .check = is_rebased },
	{ "ended: the socket's window begins behind the end", CI, KVS_ENDED, KVS_LENGTH, E,
	  .in = { ACK, CR, CS + 700, 100 }, ROW(CI_ENDED), .copied = true, .ack = SOCK_C, .win = 82 },
	{ "ended: no window is left for the socket", CI, KVS_ENDED, KVS_LENGTH, E, .in = { ACK, CR, CS + 700, 10 },
	  ROW(CI_ENDED), .copied = true, .ack = SOCK_C, .win = NONE },
	{ "last acknowledgement", CI, KVS_ENDED, KVS_LENGTH, E, .in = { ACK, CR, CS + END, 100 }, ROW(CI_LAST),
	  .copied = true, .ack = SOCK_C, .after = KVS_DONE, .events = EV(DONE) },
	{ "last acknowledgement with the next request", CI, KVS_ENDED, KVS_CHUNKED, E,
	  .in = { ACK | PSH, CR, CS + END, 100, 64 }, ROW(CI_LAST), .copied = true, .ack = SOCK_C, .after = KVS_DONE,
	  .events = EV(DONE) },
	{ "done: new offset", CI, KVS_DONE, KVS_LENGTH, E, .tweak = next_head, .in = { ACK, CR, CS + END + 77, 100 },
	  ROW(CI_DONE), .ack = SOCK_C + 77 },
	{ "copy of a request: a bare ACK for the pod", CI, KVS_ACTIVE,
	  .in = { ACK | PSH, CR, CS + 500, 100, 30, .mark = MARK_POD }, ROW(CI_COPY), .seq = UE, .ack = US + 500,
	  .win = 25, .trimmed = true },
	{ "copy of a request with SACK", CI, KVS_ACTIVE,
	  .in = { ACK | PSH, CR, CS + 500, 100, 30, .mark = MARK_POD, .sacks = 1, .sack = { { CS + 600, CS + 700 } } },
	  ROW(CI_COPY), .seq = UE, .ack = US + 500, .win = 25, .trimmed = true },
	{ "copy of a jumbo packet", CI, KVS_ACTIVE,
	  .in = { ACK | PSH, CR, CS + 500, 100, 30, .mark = MARK_POD, .jumbo = true }, ROW(CI_COPY), .seq = UE,
	  .ack = US + 500, .win = 25, .trimmed = true, .only = AF_INET6 },
	{ "copy of a FIN", CI, KVS_ACTIVE, .in = { ACK | FIN, CR, CS + 500, 100, .mark = MARK_POD }, ROW(CI_COPY),
	  .seq = UE, .ack = US + 500, .win = 25 },
	{ "copy of a reset", CI, KVS_ACTIVE, .in = { RST, CR, 0, 0, .mark = MARK_POD }, ROW(CI_COPY), .seq = UE,
	  .ack = US + UNA, .win = NONE, .tcp_flags = RST | ACK },
	{ "copy of the last acknowledgement", CI, KVS_DONE, KVS_LENGTH, E,
	  .in = { ACK, CR, CS + END, 100, .mark = MARK_POD }, ROW(CI_COPY), .seq = UE, .ack = US + END, .win = 25 },
	{ "orphan: it closes the pod's connection", CI, KVS_DONE, KVS_LENGTH, E | O,
	  .in = { ACK, CR, CS + END, 100, .mark = MARK_POD }, ROW(CI_COPY), .seq = UE, .ack = US + END, .win = 25,
	  .tcp_flags = ACK | FIN, .set = KVS_F_U_FIN },
	{ "orphan: with the pod's FIN", CI, KVS_DONE, KVS_UNTIL_CLOSE, E | O | KVS_F_POD_FIN,
	  .in = { ACK, CR, CS + END + 1, 100, .mark = MARK_POD }, ROW(CI_COPY), .seq = UE, .ack = US + END + 1,
	  .win = 25, .tcp_flags = ACK | FIN, .set = KVS_F_U_FIN },
	{ "copy that comes too late", CI, KVS_RELAY, .in = { ACK, CR, CS, 100, .mark = MARK_POD }, ROW(CI_COPY_LATE) },
	{ "copy that comes later still", CI, KVS_FREE, .in = { ACK, CR, CS, 100, .mark = MARK_POD },
	  ROW(CI_COPY_LATE) },

	/* pod ingress */
	{ "unbound: data shifted", PI, KVS_FREE, .in = { ACK | PSH, US, UE, 50, 40 }, ROW(PI_SHIFT), .seq = SOCK_U },
	{ "relay: data shifted", PI, KVS_RELAY, .in = { ACK | PSH, US, UE, 50, 40 }, ROW(PI_SHIFT), .seq = SOCK_U },
	{ "relay: FIN noted", PI, KVS_RELAY, .in = { ACK | FIN, US, UE, 50 }, ROW(PI_SHIFT), .seq = SOCK_U,
	  .set = KVS_F_POD_FIN },
	{ "armed: the very byte", PI, KVS_ARMED, .in = { ACK | PSH, US, UE, 50, 50 }, ROW(PI_DATA), .seq = CS,
	  .ack = CR, .win = 501, .after = KVS_ACTIVE, .check = is_active },
	{ "armed: old data", PI, KVS_ARMED, .in = { ACK | PSH, US - 50, UE, 50, 50 }, ROW(PI_SHIFT),
	  .seq = SOCK_U - 50 },
	{ "armed: pure ACK", PI, KVS_ARMED, .in = { ACK, US, UE, 50 }, ROW(PI_SHIFT), .seq = SOCK_U },
	{ "armed: across refuses", PI, KVS_ARMED, .in = { ACK | PSH, US - 1, UE, 50, 50 }, ROW(PI_SHIFT),
	  .seq = SOCK_U - 1, .after = KVS_RELAY },
	{ "armed: beyond refuses", PI, KVS_ARMED, .in = { ACK | PSH, US + 9, UE, 50, 50 }, ROW(PI_SHIFT),
	  .seq = SOCK_U + 9, .after = KVS_RELAY },
	{ "armed: something below is missing", PI, KVS_ARMED, .tweak = not_read, .in = { ACK | PSH, US, UE, 50, 50 },
	  ROW(PI_SHIFT), .seq = SOCK_U, .after = KVS_RELAY },
	{ "armed: FIN refuses", PI, KVS_ARMED, .in = { ACK | FIN, US, UE, 50 }, ROW(PI_SHIFT), .seq = SOCK_U,
	  .after = KVS_RELAY, .set = KVS_F_POD_FIN },
	{ "armed: RST refuses", PI, KVS_ARMED, .in = { RST, US, UE, 50 }, ROW(PI_SHIFT), .seq = SOCK_U,
	  .after = KVS_RELAY, .set = KVS_F_POD_RST },
	{ "data before the split", PI, KVS_ACTIVE, .in = { ACK | PSH, US - 60, UE, 50, 60 }, ROW(PI_OLD),
	  .seq = SOCK_U - 60 },
	{ "data across the split", PI, KVS_ACTIVE, .in = { ACK | PSH, US - 20, UE, 50, 60 }, ROW(PI_ACROSS),
	  .seq = CS - 20, .ack = CR, .win = 501 },
	{ "across, and the client lacks the front", PI, KVS_ACTIVE, .tweak = head_unacked,
	  .in = { ACK | PSH, US - 20, UE, 50, 60 }, ROW(PI_ACROSS_EARLY) },
	{ "data", PI, KVS_ACTIVE, KVS_LENGTH, .in = { ACK, US + FWD, UE, 50, 50 }, ROW(PI_DATA), .seq = CS + FWD,
	  .ack = CR, .win = 501, .check = is_counted, .set = E },
	{ "data until close", PI, KVS_ACTIVE, .in = { ACK, US + FWD, UE, 50, 50 }, ROW(PI_DATA), .seq = CS + FWD,
	  .ack = CR, .win = 501, .check = is_counted },
	{ "data in a chunk", PI, KVS_ACTIVE, KVS_CHUNKED, .in = { ACK, US + FWD, UE, 50, 50 }, ROW(PI_DATA),
	  .seq = CS + FWD, .ack = CR, .win = 501, .check = is_counted },
	{ "data in a jumbo packet", PI, KVS_ACTIVE, .in = { ACK, US + FWD, UE, 50, 50, .jumbo = true }, ROW(PI_DATA),
	  .seq = CS + FWD, .ack = CR, .win = 501, .only = AF_INET6 },
	{ "data sent again", PI, KVS_ACTIVE, KVS_CHUNKED, .in = { ACK | PSH, US + 500, UE, 50, 50 }, ROW(PI_DATA),
	  .seq = CS + 500, .ack = CR, .win = 501 },
	{ "urgent, ECN, options of data are cleared", PI, KVS_ACTIVE,
	  .in = { ACK | URG | ECE, US + FWD, UE, 50, 50, .tos = 3, .other_options = true }, ROW(PI_DATA),
	  .seq = CS + FWD, .ack = CR, .win = 501, .tcp_flags = ACK, .sacks = -1 },
	{ "data outside any window", PI, KVS_ACTIVE, .in = { ACK, US + 0x30000000, UE, 50, 50 }, ROW(PI_WINDOW),
	  .check = dropped_one },
	{ "last byte of a length", PI, KVS_ACTIVE, KVS_LENGTH, E, .in = { ACK | PSH, US + FWD, UE, 50, END - FWD },
	  ROW(PI_DATA), .seq = CS + FWD, .ack = CR, .win = 501, .after = KVS_ENDED, .events = EV(ENDED) },
	{ "data across the end", PI, KVS_ACTIVE, KVS_LENGTH, E, .in = { ACK, US + FWD, UE, 50, END - FWD + 1 },
	  ROW(PI_BROKEN), .set = KVS_F_BROKEN, .events = EV(BROKEN) },
	{ "data across the end of an orphan", PI, KVS_ACTIVE, KVS_LENGTH, E | O,
	  .in = { ACK, US + FWD, UE, 50, END - FWD + 1 }, ROW(PI_CUT_ORPHAN), .set = KVS_F_BROKEN | KVS_F_C_FIN,
	  .events = EV(BROKEN), .seq = CS + FWD, .ack = CR, .win = NONE, .tcp_flags = RST | ACK, .trimmed = true },
	{ "data behind the end", PI, KVS_ENDED, KVS_LENGTH, E, .in = { ACK, US + END, UE, 50, 10 }, ROW(PI_BEHIND),
	  .seq = SOCK_U },
	{ "data sent again after the end", PI, KVS_ENDED, KVS_CHUNKED, E, .in = { ACK, US + 500, UE, 50, 50 },
	  ROW(PI_DATA), .seq = CS + 500, .ack = CR, .win = 501 },
	{ "last chunk", PI, KVS_ACTIVE, KVS_CHUNKED, .tweak = last_chunk,
	  .in = { ACK | PSH, US + FWD, UE, 50, 5, "0\r\n\r\n" }, ROW(PI_DATA), .seq = CS + FWD, .ack = CR, .win = 501,
	  .after = KVS_ENDED, .set = E, .events = EV(ENDED) },
	{ "last chunk with extension and trailer", PI, KVS_ACTIVE, KVS_CHUNKED, .tweak = last_chunk,
	  .in = { ACK | PSH, US + FWD, UE, 50, 23, "3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\n" }, ROW(PI_DATA), .seq = CS + FWD,
	  .ack = CR, .win = 501, .after = KVS_ENDED, .set = E, .events = EV(ENDED) },
	{ "no hexadecimal digit", PI, KVS_ACTIVE, KVS_CHUNKED, .tweak = last_chunk,
	  .in = { ACK | PSH, US + FWD, UE, 50, 4, "xy\r\n" }, ROW(PI_BROKEN), .set = KVS_F_BROKEN,
	  .events = EV(BROKEN) },
	{ "bare line feed", PI, KVS_ACTIVE, KVS_CHUNKED, .tweak = last_chunk,
	  .in = { ACK | PSH, US + FWD, UE, 50, 3, "5\nx" }, ROW(PI_BROKEN), .set = KVS_F_BROKEN, .events = EV(BROKEN) },
	{ "size beyond 64 bits", PI, KVS_ACTIVE, KVS_CHUNKED, .tweak = last_chunk,
	  .in = { ACK | PSH, US + FWD, UE, 50, 19, "11111111111111111\r\n" }, ROW(PI_BROKEN), .set = KVS_F_BROKEN,
	  .events = EV(BROKEN) },
	{ "bytes behind the last chunk", PI, KVS_ACTIVE, KVS_CHUNKED, .tweak = last_chunk,
	  .in = { ACK | PSH, US + FWD, UE, 50, 6, "0\r\n\r\nx" }, ROW(PI_BROKEN), .set = KVS_F_BROKEN,
	  .events = EV(BROKEN) },
	{ "beyond a gap: stored", PI, KVS_ACTIVE, KVS_CHUNKED, .in = { ACK, US + FWD + 100, UE, 50, 50 },
	  ROW(PI_STORED), .seq = CS + FWD + 100, .ack = CR, .win = 501, .check = is_stored },
	{ "beyond a gap: too far", PI, KVS_ACTIVE, KVS_CHUNKED, .in = { ACK, US + FWD + 65536, UE, 50, 50 },
	  ROW(PI_NO_ROOM), .check = dropped_one },
	{ "beyond a gap: too many ranges", PI, KVS_ACTIVE, KVS_CHUNKED, .tweak = many_ranges,
	  .in = { ACK, US + FWD + 20000, UE, 50, 50 }, ROW(PI_NO_ROOM), .check = dropped_one },
	{ "FIN on data, with a length", PI, KVS_ACTIVE, KVS_LENGTH, E, .in = { ACK | PSH | FIN, US + FWD, UE, 50, 50 },
	  ROW(PI_FIN_DATA), .seq = CS + FWD, .ack = CR, .win = 501, .tcp_flags = ACK | PSH, .set = KVS_F_POD_FIN,
	  .events = EV(POD_FIN) },
	{ "FIN on data, until close", PI, KVS_ACTIVE, .in = { ACK | FIN, US + FWD, UE, 50, 50 }, ROW(PI_FIN_DATA),
	  .seq = CS + FWD, .ack = CR, .win = 501, .tcp_flags = ACK, .after = KVS_ENDED, .set = KVS_F_POD_FIN | E,
	  .events = EV(POD_FIN) | EV(ENDED) },
	{ "FIN before the end of a length", PI, KVS_ACTIVE, KVS_LENGTH, E, .in = { ACK | FIN, US + FWD, UE, 50 },
	  ROW(PI_FIN), .seq = SOCK_U, .set = KVS_F_POD_FIN },
	{ "FIN until close", PI, KVS_ACTIVE, .in = { ACK | FIN, US + FWD, UE, 50 }, ROW(PI_FIN), .seq = SOCK_U,
	  .after = KVS_ENDED, .set = KVS_F_POD_FIN | E, .events = EV(ENDED) },
	{ "FIN until close, all acknowledged", PI, KVS_ACTIVE, .tweak = all_acked,
	  .in = { ACK | FIN, US + FWD, UE, 50 }, ROW(PI_FIN), .seq = SOCK_U, .after = KVS_DONE,
	  .set = KVS_F_POD_FIN | E, .events = EV(ENDED) | EV(DONE) },
	{ "FIN behind missing bytes", PI, KVS_ACTIVE, .in = { ACK | FIN, US + FWD + 1, UE, 50 }, ROW(PI_FIN_EARLY) },
	{ "FIN behind a gap of chunks", PI, KVS_ACTIVE, KVS_CHUNKED, .tweak = gap,
	  .in = { ACK | FIN, US + FWD, UE, 50 }, ROW(PI_FIN_EARLY) },
	{ "FIN behind the end", PI, KVS_ENDED, KVS_LENGTH, E, .in = { ACK | FIN, US + END, UE, 50 }, ROW(PI_FIN),
	  .seq = SOCK_U, .set = KVS_F_POD_FIN },
	{ "orphan: FIN until close goes on", PI, KVS_ACTIVE, KVS_UNTIL_CLOSE, O, .in = { ACK | FIN, US + FWD, UE, 50 },
	  ROW(PI_FIN_ORPHAN), .seq = CS + FWD, .ack = CR, .win = 501, .tcp_flags = ACK | FIN, .after = KVS_ENDED,
	  .set = KVS_F_POD_FIN | E | KVS_F_C_FIN, .events = EV(ENDED) },
	{ "orphan: last segment closes the client's connection", PI, KVS_ACTIVE, KVS_LENGTH, E | O,
	  .in = { ACK | PSH, US + FWD, UE, 50, END - FWD }, ROW(PI_DATA), .seq = CS + FWD, .ack = CR, .win = 501,
	  .tcp_flags = ACK | PSH | FIN, .after = KVS_ENDED, .set = KVS_F_C_FIN, .events = EV(ENDED) },
	{ "orphan: and does so again", PI, KVS_ENDED, KVS_CHUNKED, E | O, .in = { ACK, US + END - 50, UE, 50, 50 },
	  ROW(PI_DATA), .seq = CS + END - 50, .ack = CR, .win = 501, .tcp_flags = ACK | FIN, .set = KVS_F_C_FIN },
	{ "orphan: last chunk closes", PI, KVS_ACTIVE, KVS_CHUNKED, O, .tweak = last_chunk,
	  .in = { ACK, US + FWD, UE, 50, 5, "0\r\n\r\n" }, ROW(PI_DATA), .seq = CS + FWD, .ack = CR, .win = 501,
	  .tcp_flags = ACK | FIN, .after = KVS_ENDED, .set = E | KVS_F_C_FIN, .events = EV(ENDED) },
	{ "orphan: truncated by FIN", PI, KVS_ACTIVE, KVS_LENGTH, E | O, .in = { ACK | FIN, US + FWD, UE, 50 },
	  ROW(PI_CUT_ORPHAN), .seq = CS + FWD, .ack = CR, .win = NONE, .tcp_flags = RST | ACK,
	  .set = KVS_F_POD_FIN | KVS_F_C_FIN },
	{ "orphan: truncated by RST", PI, KVS_ACTIVE, KVS_CHUNKED, O, .in = { RST, US + FWD, 0, 0 }, ROW(PI_CUT_ORPHAN),
	  .seq = CS + FWD, .ack = CR, .win = NONE, .tcp_flags = RST | ACK, .set = KVS_F_POD_RST | KVS_F_C_FIN,
	  .events = EV(POD_RST) },
	{ "orphan: truncated, once more", PI, KVS_ACTIVE, KVS_CHUNKED, O | KVS_F_POD_RST, .tweak = orphan_cut_again,
	  .in = { RST, US + FWD, 0, 0 }, ROW(PI_CUT_ORPHAN), .seq = CS + UNA, .ack = CR, .win = NONE,
	  .tcp_flags = RST | ACK, .set = KVS_F_C_FIN },
	{ "RST of the pod", PI, KVS_ACTIVE, .in = { RST | ACK, US + FWD, UE, 0 }, ROW(PI_RST), .seq = SOCK_U,
	  .set = KVS_F_POD_RST, .events = EV(POD_RST) },
	{ "RST of the pod after its FIN", PI, KVS_ACTIVE, .tweak = pod_fin_seen, .in = { RST, US + FWD, 0, 0 },
	  ROW(PI_RST), .seq = SOCK_U + 1, .set = KVS_F_POD_RST, .events = EV(POD_RST) },
	{ "RST with an old number", PI, KVS_ACTIVE, .in = { RST, US + UNA - 2, 0, 0 }, ROW(PI_RST_STRAY) },
	{ "RST with a number far away", PI, KVS_ACTIVE, .in = { RST, US + 0x200000, 0, 0 }, ROW(PI_RST_STRAY) },
	{ "zero-window probe", PI, KVS_ACTIVE, .in = { ACK, US + UNA - 1, UE, 50 }, ROW(PI_PROBE), .seq = CS + UNA - 1,
	  .ack = CR, .win = 501 },
	{ "pure ACK to an orphan", PI, KVS_ACTIVE, .flags = O, .in = { ACK, US + FWD, UE, 50 }, ROW(PI_PROBE),
	  .seq = CS + FWD, .ack = CR, .win = 501 },
	{ "pure ACK of the pod", PI, KVS_ACTIVE, .in = { ACK, US + FWD, UE, 50 }, ROW(PI_ACK), .seq = SOCK_U },
	{ "done: sent again", PI, KVS_DONE, KVS_LENGTH, E, .in = { ACK, US + 500, UE, 50, 50 }, ROW(PI_LATE),
	  .seq = SOCK_U + 500 - END },
	{ "done: FIN", PI, KVS_DONE, KVS_LENGTH, E, .in = { ACK | FIN, US + END, UE, 50 }, ROW(PI_LATE),
	  .seq = SOCK_U },

	/* client egress */
	{ "unbound: numbers shifted", CE, KVS_FREE, .in = { ACK | PSH, SOCK_C, CR, 9, 40 }, ROW(CE_SHIFT), .seq = CS },
	{ "relay: numbers shifted", CE, KVS_RELAY, .in = { ACK | PSH, SOCK_C, CR, 9, 40 }, ROW(CE_SHIFT), .seq = CS },
	{ "relay: reset passes", CE, KVS_RELAY, .in = { ACK | RST, SOCK_C, CR, 9 }, ROW(CE_SHIFT), .seq = CS },
	{ "ACK of the socket", CE, KVS_ACTIVE, KVS_LENGTH, E, .in = { ACK, SOCK_C, CR + 30, 9 }, ROW(CE_SPLICED),
	  .seq = CS + FWD, .check = is_not_owing },
	{ "keep-alive of the socket", CE, KVS_ACTIVE, .in = { ACK, SOCK_C - 1, CR, 9 }, ROW(CE_SPLICED), .seq = CS - 1,
	  .check = is_owing },
	{ "head sent again", CE, KVS_ACTIVE, .in = { ACK, SOCK_C - 90, CR, 9, 90 }, ROW(CE_SPLICED), .seq = CS - 90,
	  .check = is_owing },
	{ "SACK for the client's data is not touched", CE, KVS_ACTIVE,
	  .in = { ACK, SOCK_C, CR, 9, .sacks = 1, .sack = { { CR + 9, CR + 19 } } }, ROW(CE_SPLICED), .seq = CS + FWD,
	  .sacks = 1, .sack = { { CR + 9, CR + 19 } } },
	{ "next head behind the end", CE, KVS_ENDED, KVS_LENGTH, E, .in = { ACK | PSH, SOCK_C, CR, 9, 90 },
	  ROW(CE_SPLICED), .seq = CS + END, .check = is_owing },
	{ "FIN of an orphan", CE, KVS_ACTIVE, .in = { ACK | FIN, SOCK_C, CR, 9 }, ROW(CE_STOLEN), .set = O,
	  .events = EV(ORPHAN) },
	{ "armed: FIN of an orphan", CE, KVS_ARMED, .in = { ACK | FIN, SOCK_C, CR, 9 }, ROW(CE_STOLEN), .set = O,
	  .events = EV(ORPHAN) },
	{ "armed: FIN of an orphan on a head that is sent again", CE, KVS_ARMED,
	  .in = { ACK | FIN, SOCK_C - 30, CR, 9, 30 }, ROW(CE_SHIFT), .seq = CS - 30, .tcp_flags = ACK, .set = O,
	  .events = EV(ORPHAN) },
	{ "armed: FIN of a daemon that says so", CE, KVS_ARMED, KVS_CHUNKED, KVS_F_CLOSING,
	  .in = { ACK | FIN, SOCK_C, CR, 9 }, ROW(CE_SHIFT), .seq = CS },
	{ "relay: FIN", CE, KVS_RELAY, .in = { ACK | FIN, SOCK_C, CR, 9 }, ROW(CE_SHIFT), .seq = CS },
	{ "FIN of an orphan on data", CE, KVS_ENDED, KVS_LENGTH, E, .in = { ACK | FIN, SOCK_C, CR, 9, 30 },
	  ROW(CE_FIN_CUT), .seq = CS + END, .tcp_flags = ACK, .set = O, .events = EV(ORPHAN) },
	{ "RST of an orphan", CE, KVS_ACTIVE, .in = { RST | ACK, SOCK_C, CR, 9 }, ROW(CE_STOLEN), .set = O,
	  .events = EV(ORPHAN) },
	{ "FIN of a daemon that says so", CE, KVS_ENDED, KVS_UNTIL_CLOSE, E | KVS_F_CLOSING,
	  .in = { ACK | FIN, SOCK_C, CR, 9 }, ROW(CE_SPLICED), .seq = CS + END },
	{ "head sent again, with the FIN that waits behind it", CE, KVS_ENDED, KVS_UNTIL_CLOSE, E | KVS_F_CLOSING,
	  .in = { ACK | FIN, SOCK_C - 90, CR, 9, 90 }, ROW(CE_FIN_CUT), .seq = CS - 90, .tcp_flags = ACK,
	  .check = is_owing },
	{ "RST of a daemon that says so", CE, KVS_ACTIVE, KVS_CHUNKED, KVS_F_CLOSING,
	  .in = { RST | ACK, SOCK_C, CR, 9 }, ROW(CE_RST), .seq = CS + FWD, .check = is_owing },
	{ "RST as an answer", CE, KVS_ACTIVE, KVS_CHUNKED, KVS_F_CLOSING, .in = { RST, SOCK_C, 0, 0 }, ROW(CE_RST),
	  .seq = CS + UNA },
	{ "done: FIN of an orphan passes", CE, KVS_DONE, KVS_LENGTH, E | O, .in = { ACK | FIN, SOCK_C, CR, 9 },
	  ROW(CE_SPLICED), .seq = CS + END },

	/* pod egress */
	{ "unbound: acknowledgement and SACK shifted", PE, KVS_FREE,
	  .in = { ACK, UE, SOCK_U, 9, .sacks = 1, .sack = { { SOCK_U + 9, SOCK_U + 19 } } }, ROW(PE_SHIFT), .ack = US,
	  .sacks = 1, .sack = { { US + 9, US + 19 } } },
	{ "relay: request", PE, KVS_RELAY, .in = { ACK | PSH, UE, SOCK_U, 9, 64 }, ROW(PE_SHIFT), .ack = US },
	{ "ACK of the socket says what the client has", PE, KVS_ACTIVE, .in = { ACK, UE, SOCK_U, 9 }, ROW(PE_SPLICED),
	  .ack = US + UNA, .win = 300 },
	{ "ACK of less than the split", PE, KVS_ACTIVE, .in = { ACK, UE, SOCK_U - 30, 9 }, ROW(PE_SPLICED),
	  .ack = US - 30 },
	{ "FIN of an orphan to the pod", PE, KVS_ACTIVE, .in = { ACK | FIN, UE, SOCK_U, 9 }, ROW(PE_STOLEN), .set = O,
	  .events = EV(ORPHAN) },
	{ "armed: FIN of an orphan to the pod", PE, KVS_ARMED, .in = { ACK | FIN, UE, SOCK_U, 9 }, ROW(PE_STOLEN),
	  .set = O, .events = EV(ORPHAN) },
	{ "armed: RST of an orphan to the pod", PE, KVS_ARMED, .in = { RST, UE, 0, 0 }, ROW(PE_STOLEN), .set = O,
	  .events = EV(ORPHAN) },
	{ "FIN of an orphan to the pod on data", PE, KVS_ACTIVE, .in = { ACK | FIN, UE, SOCK_U, 9, 5 }, ROW(PE_FIN_CUT),
	  .ack = US + UNA, .win = 300, .tcp_flags = ACK, .set = O, .events = EV(ORPHAN) },
	{ "RST of an orphan to the pod", PE, KVS_ACTIVE, KVS_LENGTH, E, .in = { RST | ACK, UE, SOCK_U, 0 },
	  ROW(PE_STOLEN), .set = O, .events = EV(ORPHAN) },
	{ "RST of a socket that is gone before the end", PE, KVS_ENDED, KVS_UNTIL_CLOSE, E | KVS_F_CLOSING,
	  .in = { RST, UE, 0, 0 }, ROW(PE_STOLEN) },
	{ "RST of a daemon to the pod", PE, KVS_ACTIVE, KVS_LENGTH, KVS_F_CLOSING, .in = { RST | ACK, UE, SOCK_U, 0 },
	  ROW(PE_SPLICED), .ack = US + UNA, .win = 300 },
	{ "done: acknowledges the end", PE, KVS_DONE, KVS_LENGTH, E, .in = { ACK, UE, SOCK_U, 9 }, ROW(PE_SPLICED),
	  .ack = US + END },
	{ "redirected before: left alone", PE, KVS_ACTIVE, .in = { ACK, UE, US + 9, 9, .mark = MARK_TO_POD },
	  ROW(MARKED) },
};

static unsigned events_seen;

static int on_event(void *ctx, void *data, size_t size)
{
	const struct kvs_event *e = data;

	assert_true(size >= sizeof(*e));
	assert_int_equal(e->splice, 1);
	assert_int_equal(e->gen, 7);
	assert_int_equal(e->cookie, 77);
	events_seen |= 1U << e->type;
	return 0;
}

static int verdict_of(const struct row *r)
{
	uint8_t goes = row_of[r->row].goes;

	if (goes == KVS_GOES_NOWHERE)
		return r->hook == CI || r->hook == PI ? TC_ACT_SHOT : TC_ACT_REDIRECT; /* to nowhere */
	return goes == KVS_GOES_PEER ? TC_ACT_REDIRECT : TC_ACT_UNSPEC;
}

#define EXPECT(cond, ...)                                                                    \
	do {                                                                                 \
		if (!(cond)) {                                                               \
			print_message("%s, %s: ", r->name, family == AF_INET ? "v4" : "v6"); \
			fail_msg(__VA_ARGS__);                                               \
		}                                                                            \
	} while (0)

static void header_check(const struct row *r, int family, const struct result *o, bool peer)
{
	uint8_t flags = r->tcp_flags ? r->tcp_flags
			: peer	     ? ACK | (r->hook == PI ? r->in.flags & PSH : 0)
				     : r->in.flags;
	uint32_t win = r->win == NONE ? 0 : r->win ? r->win : r->in.win;

	EXPECT(o->sum_ok, "a checksum or length is wrong");
	EXPECT(o->seq == (r->seq ? r->seq : r->in.seq), "seq is %x, not %x", o->seq, r->seq ? r->seq : r->in.seq);
	EXPECT(o->ack == (r->ack ? r->ack : r->in.ack), "ack is %x, not %x", o->ack, r->ack ? r->ack : r->in.ack);
	EXPECT(o->win == win, "window is %u, not %u", o->win, win);
	EXPECT(o->flags == flags, "flags are %x, not %x", o->flags, flags);
	EXPECT(o->payload == (r->trimmed ? 0 : r->in.payload), "payload is %u", o->payload);
	EXPECT(r->in.padding || o->data_ok, "the payload was changed");
	EXPECT(o->to_client == (peer ? r->hook == PI : r->hook == CE) &&
		       o->to_pod == (peer ? r->hook == CI : r->hook == PE),
	       "wrong address or port");
	EXPECT(!peer || o->mark == ((r->hook == CI ? MARK_TO_POD : MARK_TO_CLIENT) | 1), "not marked");
	EXPECT(!peer || (o->tos & 3) == 0, "ECN bits are left");
	EXPECT(!peer || r->hook == CI || (o->flags & RST) || !(o->frag & 0x4000), "may not be fragmented");
	if (r->sacks < 0)
		EXPECT(o->nops && o->options, "options are not NOPs");
	if (r->sacks > 0)
		EXPECT((int)o->sacks == r->sacks && memcmp(o->sack, r->sack, sizeof(*r->sack) * (size_t)r->sacks) == 0,
		       "%u SACK blocks, first %x-%x", o->sacks, o->sack[0].from, o->sack[0].to);
}

static void row_check(const struct row *r, int family)
{
	union kvs_row_counts before, after;
	struct kvs_splice sp;
	struct result o;
	int verdict = verdict_of(r);

	splice_put(family, r->state, r->framing, r->flags, r->tweak);
	rows_read(skel->maps.kvs_rows, &before);
	events_seen = 0;
	packet_run(family, r->hook, &r->in, &o);
	rows_read(skel->maps.kvs_rows, &after);
	ring_buffer__consume(ring);
	sp = splice_get(1);
	/* A copy enters lo, where the program runs a second time. */
	if (r->copied)
		EXPECT(after.client_copy - before.client_copy == 1, "no copy for the pod");
	after.client_copy -= r->copied;
	if (r->copied)
		after.other = before.other; /* what the copy became comes round by lo as well */
	for (unsigned i = 0; i < KVS_ROW_ACTIVATED; i++)
		EXPECT(after.row[i] - before.row[i] == (i == r->row), "%s was counted, not %s", row_of[i].name,
		       row_of[r->row].name);
	EXPECT(o.verdict == verdict, "verdict is %d, not %d", o.verdict, verdict);
	if (verdict == TC_ACT_UNSPEC || (verdict == TC_ACT_REDIRECT && (r->hook == CI || r->hook == PI)))
		header_check(r, family, &o, verdict == TC_ACT_REDIRECT);
	EXPECT(sp.state == (r->after ? r->after : r->state), "state is %u", sp.state);
	EXPECT(sp.flags == (r->flags | r->set), "flags of the splice are %x, not %x", sp.flags, r->flags | r->set);
	EXPECT(events_seen == r->events, "events are %x, not %x", events_seen, r->events);
	EXPECT(sp.users == 0, "%u users are left", sp.users);
	if (r->check)
		r->check(&sp);
}

static void each_row_of_the_tables(void **state)
{
	need_env();
	for (unsigned i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		for (int k = 0; k < 2; k++)
			if (!rows[i].only || rows[i].only == (k ? AF_INET6 : AF_INET))
				row_check(&rows[i], k ? AF_INET6 : AF_INET);
}

static void link_aged(struct kvs_splice *sp)
{
	sp->c_link = (struct kvs_link){ .addrs = { [6] = 0x77 }, .ifindex = 1, .at = time_mono() - 2 * NS_PER_S };
}

static void link_of_another_device(struct kvs_splice *sp)
{
	sp->c_link = (struct kvs_link){ .addrs = { [6] = 0x77 }, .ifindex = 2, .at = time_mono() };
}

static void the_way_to_a_peer_is_learned_at_egress_and_good_for_a_second(void **state)
{
	const struct packet data = { ACK | PSH, US + FWD, UE, 100, 30, .mark = 0 };
	const uint32_t learn = MARK_TO_CLIENT | 1;
	struct packet sent = { ACK | PSH, CS + FWD, CR, 100, 30, .mark = learn };
	void (*unknown[])(struct kvs_splice *) = { NULL, link_aged, link_of_another_device };
	struct result o;

	need_env();
	for (int family = AF_INET; family <= AF_INET6; family += AF_INET6 - AF_INET) {
		for (unsigned i = 0; i < sizeof(unknown) / sizeof(*unknown); i++) {
			splice_put(family, KVS_ACTIVE, KVS_UNTIL_CLOSE, 0, unknown[i]);
			packet_run(family, PI, &data, &o);
			assert_int_equal(o.mark, learn);
		}
		packet_run(family, PE, &sent, &o); /* of another connection */
		assert_int_equal(splice_get(1).c_link.ifindex, 2);
		packet_run(family, CE, &sent, &o);
		assert_int_equal(o.mark, 0);
		assert_int_equal(splice_get(1).c_link.ifindex, 1);
		assert_int_equal(splice_get(1).u_link.ifindex, 0);
		packet_run(family, PI, &data, &o);
		assert_int_equal(o.verdict, TC_ACT_REDIRECT);
		assert_int_equal(o.mark, MARK_TO_CLIENT);
		assert_int_equal(o.from, 0x10 + CE);
		assert_true(o.sum_ok && o.to_client);
	}
}

static void every_row_that_a_packet_can_have_is_in_the_table(void **state)
{
	bool seen[KVS_ROWS_N] = { [KVS_ROW_OTHER] = true,      [KVS_ROW_UNREADABLE] = true,
				  [KVS_ROW_SYN] = true,	       [KVS_ROW_SYN_KNOWN] = true,
				  [KVS_ROW_SYN_REUSE] = true,  [KVS_ROW_CI_ERROR] = true, /* test_splice_icmp.c */
				  [KVS_ROW_CI_TOO_BIG] = true, [KVS_ROW_CI_ERROR_STRAY] = true,
				  [KVS_ROW_FAILED] = true, /* tests of their own below; no helper fails here */
				  [KVS_ROW_PI_RACE] = true /* takes two CPUs */ };

	need_env();
	for (unsigned i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		seen[rows[i].row] = true;
	for (unsigned i = 0; i < KVS_ROW_ACTIVATED; i++)
		if (!seen[i])
			fail_msg("no row has %s", row_of[i].name);
}

static void the_verifier_stays_within_its_budget(void **state)
{
	struct bpf_program *p;

	need_env();
	bpf_object__for_each_program(p, skel->obj)
	{
		bool tc = bpf_program__type(p) == BPF_PROG_TYPE_SCHED_CLS;
		unsigned most = tc ? 100000 : 5000, size = tc ? 8000 : 1000;
		struct bpf_prog_info info = { 0 };
		uint32_t len = sizeof(info);

		assert_int_equal(bpf_obj_get_info_by_fd(bpf_program__fd(p), &info, &len), 0);
		print_message("NOTE: %s: %u instructions, at most %u; %u verified, at most %u\n", bpf_program__name(p),
			      info.xlated_prog_len / 8, size, info.verified_insns, most);
		assert_in_range(info.verified_insns, 1, most);
		assert_in_range(info.xlated_prog_len / 8, 1, size);
	}
}

static int setup(void **state)
{
	LIBBPF_OPTS(bpf_tc_hook, lo, .ifindex = 1, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, o, .handle = 1, .priority = 1);

	if (splice_setup(on_event) || env_missing)
		return env_missing ? 0 : -1;
	o.prog_fd = bpf_program__fd(skel->progs.kvs_ingress);
	return bpf_tc_hook_create(&lo) || bpf_tc_attach(&lo, &o) ? -1 : 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_row_of_the_tables),
		cmocka_unit_test(the_way_to_a_peer_is_learned_at_egress_and_good_for_a_second),
		cmocka_unit_test(every_row_that_a_packet_can_have_is_in_the_table),
		cmocka_unit_test(the_verifier_stays_within_its_budget),
	};

	return cmocka_run_group_tests(tests, setup, splice_teardown);
}
