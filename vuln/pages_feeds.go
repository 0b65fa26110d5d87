// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/vuln/feed"
)

// Tabs of Vulnerabilities.
const (
	tabOpen  = "Open"
	tabFeeds = "Feeds"
)

type feedsPage struct {
	Sources []feedRow
	Lists   []FeedState
	Scores  *EPSS // the day that is known; nil: none
	Kinds   []console.Option
	Typed   url.Values
	May     bool
}

// feedRow is a source with its picture.
type feedRow struct {
	FeedSource
	Bars   []syncBar
	Looks  string // the picture in words
	Asked  bool   // there is something to fetch
	Manual bool   // a person brings it
}

// syncBar is one look in the picture: 8 units wide, as high as it brought much.
type syncBar struct {
	X, Y, Height int
	Tone         string
	Title        string
}

const (
	barWide = 8
	barHigh = 24
)

// picture draws the last looks, the newest on the right.
func picture(looks []Sync) (bars []syncBar, words string) {
	failed := 0
	for i, l := range looks {
		b := syncBar{X: (syncsKept - len(looks) + i) * barWide, Tone: "good", Height: 8, Title: l.At.UTC().Format("2006-01-02 15:04 UTC") + ": "}
		switch n := l.New + l.Changed; {
		case l.Outcome == "failed":
			b.Tone, b.Height = "bad", barHigh
			b.Title += l.Error
			failed++
		case n > 0:
			b.Title += fmt.Sprintf("%d new, %d changed", l.New, l.Changed)
			for b.Height = 12; n >= 10 && b.Height < barHigh; n /= 10 {
				b.Height += 4
			}
		default:
			b.Tone = "past"
			b.Title += "nothing new"
		}
		b.Y = barHigh - b.Height
		bars = append(bars, b)
	}
	return bars, fmt.Sprintf("%s, %d failed", console.Plural(len(looks), "look", "looks"), failed)
}

func (s *Service) feedPages(c *console.Console) {
	read, write := string(tenant.VulnRead), string(tenant.FeedImport)
	c.Page(console.Page{Path: "/vulnerabilities/feeds", Title: "Feeds", Menu: "Vulnerabilities", Tab: tabFeeds, TabOrder: 30, Verb: read, FS: pagesFS, Template: "pages/feeds.html", Load: s.loadFeeds})
	c.Form("/vulnerabilities/feeds", write, func(r *http.Request) (string, error) {
		t, actor, err := mayFeed(r.Context())
		if err != nil {
			return "", err
		}
		in, err := sourceForm(r)
		if err != nil {
			return "", err
		}
		x, err := s.PutSource(r.Context(), t, actor, strings.TrimSpace(r.PostFormValue("name")), in)
		if err == nil && fetched(x.Kind) {
			console.Say(r, "The source “"+x.Name+"” is looked at now.")
		} else if err == nil {
			console.Say(r, "The source “"+x.Name+"” waits for what you bring.")
		}
		return "/vulnerabilities/feeds", err
	})
	c.Form("/vulnerabilities/feeds/{name}/sync", write, func(r *http.Request) (string, error) {
		t, _, err := mayFeed(r.Context())
		if err != nil {
			return "", err
		}
		x, err := s.SyncNow(r.Context(), t, r.PathValue("name"))
		if err == nil {
			console.Say(r, "The source “"+x.Name+"” is looked at now.")
		}
		return "/vulnerabilities/feeds", err
	})
	c.Form("/vulnerabilities/feeds/{name}/remove", write, func(r *http.Request) (string, error) {
		t, actor, err := mayFeed(r.Context())
		if err == nil {
			err = s.DeleteSource(r.Context(), t, actor, r.PathValue("name"))
		}
		if err == nil {
			console.Say(r, "The source is gone. Its records stay.")
		}
		return "/vulnerabilities/feeds", err
	})
	c.Upload("/vulnerabilities/feeds/upload", write, feed.MaxBytes, func(r *http.Request, file io.ReaderAt, size int64) (string, error) {
		t, actor, err := mayFeed(r.Context())
		if err != nil {
			return "", err
		}
		done, err := s.Upload(r.Context(), t, actor, strings.TrimSpace(r.FormValue("feed")), file, size)
		if err == nil {
			console.Say(r, fmt.Sprintf("%s: %s; records: %d new, %d changed; %d newly known to be exploited.", done.Feed, console.Plural(done.Records, "entry", "entries"), done.New, done.Changed, done.Exploited))
		}
		return "/vulnerabilities/feeds", err
	})
}

// sourceForm reads what was typed into the form of sources.
func sourceForm(r *http.Request) (SourceIn, error) {
	in := SourceIn{Source: feed.Source{Kind: feed.Kind(r.PostFormValue("kind")), Location: strings.TrimSpace(r.PostFormValue("location")), Whole: r.PostFormValue("whole") == "yes"}}
	for e := range strings.SplitSeq(r.PostFormValue("ecosystems"), ",") {
		if e = strings.TrimSpace(e); e != "" {
			in.Ecosystems = append(in.Ecosystems, e)
		}
	}
	if key := strings.TrimSpace(r.PostFormValue("keys")); strings.Contains(key, "BEGIN PGP") {
		in.Keys = []string{key}
	} else {
		for k := range strings.Lines(key) {
			if k = strings.TrimSpace(k); k != "" {
				in.Keys = append(in.Keys, k)
			}
		}
	}
	hours, err := console.Number(r, "every")
	if err != nil {
		return in, err
	}
	days, err := console.Number(r, "stale")
	in.EveryMinutes, in.StaleMinutes = hours*60, days*24*60
	return in, err
}

func (s *Service) loadFeeds(r *http.Request) (any, error) {
	ctx := r.Context()
	t := tenant.MustTenant(ctx)
	p := feedsPage{Typed: console.Typed(r), May: tenant.Holds(ctx, string(tenant.FeedImport))}
	list, err := s.Sources(ctx, t)
	if err != nil {
		return nil, err
	}
	for _, x := range list {
		row := feedRow{FeedSource: x, Asked: fetched(x.Kind), Manual: !fetched(x.Kind)}
		row.Bars, row.Looks = picture(x.Syncs)
		p.Sources = append(p.Sources, row)
	}
	if p.Lists, err = s.Feeds(ctx, t); err != nil {
		return nil, err
	}
	if p.Scores, err = s.scoresDay(ctx, t); err != nil {
		return nil, err
	}
	for _, k := range feed.Kinds {
		p.Kinds = append(p.Kinds, console.Option{Value: string(k.Kind), Word: k.Text})
	}
	return p, nil
}

// Behind says how old what was taken last is, in words; empty where its maker does not say.
func (r feedRow) Behind() string {
	switch {
	case r.BehindDays < 1 || r.Made.IsZero() && r.State != SourceBehind:
		return ""
	case r.BehindDays == 1:
		return "1 day behind"
	}
	return fmt.Sprintf("%d days behind", r.BehindDays)
}

// Where is the source in few words.
func (r feedRow) Where() string {
	switch r.Kind {
	case KindUpload:
		return "uploaded"
	case feed.KindBundle:
		return "signed bundle"
	}
	u, err := url.Parse(r.Location)
	if err != nil || u.Host == "" {
		return r.Location
	}
	return u.Host
}

// Due is when people are told if nothing good comes.
func (r feedRow) Due() time.Time {
	if r.LastGood.IsZero() {
		return time.Time{}
	}
	return r.LastGood.Add(time.Duration(r.StaleMinutes) * time.Minute)
}
