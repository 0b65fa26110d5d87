// SPDX-License-Identifier: AGPL-3.0-only

package inform

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/wire"
)

// prefilled is a draft made from a case: its title and summary, the versions that are affected and what users can do, as the
// report says it. Who is impacted follows from its vulnerability; where that says nothing, all users are meant.
func (s *Service) prefilled(ctx context.Context, id string) (Words, error) {
	c, err := s.cfg.Cases.Case(ctx, id)
	if err != nil {
		return Words{}, err
	}
	report, err := s.cfg.Cases.Pack(ctx, id, respond.Notification)
	if err != nil {
		return Words{}, err
	}
	field := func(id string) string {
		i := slices.IndexFunc(report.Fields, func(f respond.PackField) bool { return f.ID == id })
		if i < 0 {
			return ""
		}
		return strings.TrimSpace(report.Fields[i].Value)
	}
	w := Words{Kind: KindCase, Severity: wire.NoticeCritical, Case: id, Product: c.Product, Vulnerability: c.Ref, Subject: plain(c.Title, maxSubject-4), Audience: All, Devices: s.cfg.Command != nil, Language: "en"}
	var b strings.Builder
	b.WriteString(cmp.Or(strings.TrimSpace(c.Summary), c.Title))
	for _, part := range []struct{ name, id string }{{"Affected versions", "versions"}, {"What you can do", "measures_users"}, {"What you can do now", "user_action"}} {
		if text := field(part.id); text != "" && !strings.Contains(b.String(), text) {
			fmt.Fprintf(&b, "\n\n%s: %s", part.name, text)
		}
	}
	w.Texts = map[string]Text{"en": {plain(c.ProductName+": "+c.Title, maxTitleBytes), cut(b.String(), wire.MaxNoticeText)}}
	a, _ := tenant.ActorFrom(ctx)
	if _, err := s.query(ctx, Campaign{Words: Words{Audience: Impacted, Product: c.Product, Vulnerability: c.Ref}, tenant: a.Tenant}); err == nil && c.Ref != "" {
		w.Audience = Impacted
	}
	return w, nil
}

// cut keeps at most so many bytes.
func cut(s string, most int) string {
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most-4], "") + "…"
	}
	return s
}
