// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/wire"
)

// shelf is an agent as far as notices go.
func shelf(dir string, c clock.Clock, cut func(string) error) *agent {
	d := disk{dir: dir, cut: cut}
	a := &agent{Config: Config{Log: slog.New(slog.DiscardHandler), Clock: c}, disk: d, time: openCalendar(c, disk{dir: dir})}
	a.loadNotices()
	return a
}

func notice(id, severity string, edit ...func(*wire.Notice)) []byte {
	n := wire.Notice{ID: id, Kind: wire.NoticeSecurity, Severity: severity, Texts: []wire.NoticeText{{Lang: "en", Title: "Title of " + id, Text: "Text."}, {Lang: "de", Title: "Titel von " + id, Text: "Text."}}}
	for _, e := range edit {
		e(&n)
	}
	b, err := json.Marshal(n)
	if err != nil {
		panic(err)
	}
	return b
}

func (a *agent) ids() (out []string) {
	for _, n := range a.noticesNow(nil) {
		out = append(out, n.ID)
	}
	return out
}

var noon = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// TestNoticesTakeTheirPlace: one notice for an id, corrections in the place of what they correct for good, the gravest first.
func TestNoticesTakeTheirPlace(t *testing.T) {
	dir := t.TempDir()
	a := shelf(dir, clock.NewHand(noon), nil)
	instead := func(id string) func(*wire.Notice) { return func(n *wire.Notice) { n.Replaces = id } }
	for _, c := range []struct {
		body []byte
		ok   bool
		ids  string
	}{
		{notice("a", wire.NoticeInfo), true, "a"},
		{notice("b", wire.NoticeCritical), true, "b a"},
		{notice("c", wire.NoticeWarning), true, "b c a"},
		{notice("c", wire.NoticeWarning), true, "b c a"}, // the same once more is one
		{notice("c", wire.NoticeInfo), false, "b c a"},   // another under its name is none
		{notice("d", wire.NoticeCritical, instead("a")), true, "b d c"},
		{notice("a", wire.NoticeInfo), false, "b d c"}, // what was corrected comes late
		{notice("e", wire.NoticeInfo, instead("d")), true, "b c e"},
		{notice("a", wire.NoticeInfo), false, "b c e"}, // and later still
		{notice("d", wire.NoticeCritical, instead("a")), false, "b c e"},
		{notice("f", wire.NoticeInfo, instead("never-seen")), true, "b c f e"},
		{notice("never-seen", wire.NoticeInfo), false, "b c f e"},
		{[]byte(`{"id":"g"}`), false, "b c f e"},
		{[]byte(strings.Repeat("[", 100_000)), false, "b c f e"},
	} {
		if err := a.keepNotice(c.body); (err == nil) != c.ok {
			t.Errorf("%.80s: %v", c.body, err)
		}
		for _, a := range []*agent{a, shelf(dir, a.Clock, nil)} { // in memory and after a start
			if got := strings.Join(a.ids(), " "); got != c.ids {
				t.Errorf("after %.80s it shows %s, want %s", c.body, got, c.ids)
			}
		}
	}
	if n := a.noticesNow([]string{"de-AT"})[0]; n.Title != "Titel von b" || n.Lang != "de" || !n.Received.Equal(noon) {
		t.Errorf("%+v", n)
	}
}

// TestNoticesThatMatterStay: the number and the bytes are bounded; the oldest goes first, a critical one last.
func TestNoticesThatMatterStay(t *testing.T) {
	a := shelf(t.TempDir(), clock.NewHand(noon), nil)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(a.keepNotice(notice("grave", wire.NoticeCritical)))
	for i := range 3 * maxNotices {
		must(a.keepNotice(notice(fmt.Sprintf("n%02d", i), []string{wire.NoticeInfo, wire.NoticeWarning}[i%2])))
	}
	ids := a.ids()
	if len(ids) != maxNotices || ids[0] != "grave" || !slices.Contains(ids, "n47") || slices.Contains(ids, "n32") {
		t.Errorf("it shows %v", ids)
	}
	for i := range maxNotices {
		must(a.keepNotice(notice(fmt.Sprintf("g%02d", i), wire.NoticeCritical)))
	}
	if err := a.keepNotice(notice("small", wire.NoticeInfo)); err == nil || slices.Contains(a.ids(), "small") || len(a.ids()) != maxNotices {
		t.Errorf("for an info notice a critical one went: %v, %v", err, a.ids())
	}
	long := func(n *wire.Notice) {
		n.Texts = nil
		for i := range 7 {
			n.Texts = append(n.Texts, wire.NoticeText{Lang: "e" + string(rune('a'+i)), Title: "T", Text: strings.Repeat("x", wire.MaxNoticeText)})
		}
	}
	for i := range 8 {
		must(a.keepNotice(notice(fmt.Sprintf("long%d", i), wire.NoticeCritical, long)))
	}
	b, err := a.disk.read(noticesName)
	if err != nil || len(b) > maxNoticeBytes+1024 || !slices.Contains(a.ids(), "long7") {
		t.Errorf("%d bytes on disk, %v, it shows %v", len(b), err, a.ids())
	}
}

// TestNoticesEnd: what has ended is not shown. It is dropped, or refused, only when the platform has said what time it is.
func TestNoticesEnd(t *testing.T) {
	hand := clock.NewHand(noon)
	a := shelf(t.TempDir(), hand, nil)
	until := func(at time.Time) func(*wire.Notice) { return func(n *wire.Notice) { n.Ends = at.UnixMilli() } }
	for _, b := range [][]byte{notice("day", wire.NoticeInfo, until(noon.Add(24*time.Hour))), notice("late", wire.NoticeInfo, until(noon.Add(-time.Hour))), notice("ever", wire.NoticeInfo)} {
		if err := a.keepNotice(b); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(a.ids(), " "); got != "ever day" {
		t.Errorf("it shows %s", got)
	}
	hand.Set(noon.Add(24 * time.Hour))
	if got := strings.Join(a.ids(), " "); got != "ever" {
		t.Errorf("a day later it shows %s", got)
	}
	hand.Set(noon)
	if got := strings.Join(a.ids(), " "); got != "ever day" {
		t.Errorf("its own clock was wrong, and it shows %s", got)
	}
	if err := a.time.told(noon.Add(24 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := a.keepNotice(notice("late2", wire.NoticeInfo, until(noon))); err == nil {
		t.Error("a notice that had ended was stored")
	}
	if err := a.keepNotice(notice("new", wire.NoticeInfo)); err != nil {
		t.Fatal(err)
	}
	if a.notices.kept.index("day") >= 0 || a.notices.kept.index("ever") < 0 {
		t.Errorf("it keeps %+v", a.notices.kept.Notices)
	}
}

// TestNoticesOnDisk: whichever effect on disk fails, the notice and what somebody saw of it are there as a whole or not at
// all, the mark never without its report; and what was said to be kept is.
func TestNoticesOnDisk(t *testing.T) {
	hand := clock.NewHand(noon)
	steps := []func(*agent) error{
		func(a *agent) error { return a.keepNotice(notice("a", wire.NoticeInfo)) },
		func(a *agent) error {
			return a.keepNotice(notice("b", wire.NoticeInfo, func(n *wire.Notice) { n.Replaces = "a" }))
		},
		func(a *agent) error { return a.markNotice("b", wire.NoticeShown) },
		func(a *agent) error { return a.markNotice("b", wire.NoticeAcknowledged) },
	}
	state := func(a *agent) string {
		b, err := json.Marshal(a.notices.kept)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	failed := 0
	for at := 1; ; at++ {
		dir, n := t.TempDir(), 0
		a := shelf(dir, hand, func(string) error {
			if n++; n == at {
				return errors.New("the disk is full")
			}
			return nil
		})
		for i, step := range steps {
			before := state(a)
			err := step(a)
			if err != nil {
				failed++
				if state(a) != before {
					t.Errorf("effect %d failed and step %d counts", at, i)
				}
				if after := state(shelf(dir, hand, nil)); after != before && !strings.Contains(after, `"b"`) && i > 0 {
					t.Errorf("effect %d failed, after a start it is neither: %s", at, after)
				}
				a = shelf(dir, hand, nil)
				if err := step(a); err != nil {
					t.Errorf("effect %d failed, step %d again: %v", at, i, err)
				}
			}
			if got := state(shelf(dir, hand, nil)); got != state(a) {
				t.Errorf("step %d is kept as %s, want %s", i, got, state(a))
			}
		}
		k := shelf(dir, hand, nil).notices.kept
		if len(k.Notices) != 1 || k.Notices[0].State != wire.NoticeAcknowledged || len(k.Reports) != 2 || k.Reports[0].State != wire.NoticeShown || k.Reports[1].State != wire.NoticeAcknowledged {
			t.Errorf("effect %d failed: it ends as %+v", at, k)
		}
		if n < at {
			break
		}
	}
	if failed < 3*len(steps) {
		t.Errorf("only %d effects failed", failed)
	}
}

// TestNoticesMarkedOnce: said again, or the lesser after the greater, changes nothing; nonsense is an error.
func TestNoticesMarkedOnce(t *testing.T) {
	a := shelf(t.TempDir(), clock.NewHand(noon), nil)
	if err := a.keepNotice(notice("a", wire.NoticeInfo)); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{wire.NoticeAcknowledged, wire.NoticeShown, wire.NoticeAcknowledged} {
		if err := a.markNotice("a", s); err != nil {
			t.Error(err)
		}
	}
	if r := a.notices.kept.Reports; len(r) != 1 || r[0] != (wire.NoticeReport{Notice: "a", State: wire.NoticeAcknowledged, At: noon.UnixMilli()}) {
		t.Errorf("%+v", r)
	}
	if err := a.markNotice("a", "burnt"); err == nil {
		t.Error("it took nonsense")
	}
	if err := a.markNotice("b", wire.NoticeShown); !errors.Is(err, ErrNotice) {
		t.Error(err)
	}
	a.notices.close()
	if err := a.markNotice("a", wire.NoticeShown); err == nil {
		t.Error("a device that is being wiped took a mark")
	}
	if err := a.disk.write(noticesName, []byte("{")); err != nil { // damaged
		t.Fatal(err)
	}
	if b := shelf(a.disk.dir, a.Clock, nil); len(b.ids()) != 0 || b.keepNotice(notice("a", wire.NoticeInfo)) != nil {
		t.Error("damage keeps it from taking notices")
	}
}
