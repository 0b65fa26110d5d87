// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/law"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/vuln"
	"github.com/openthings-platform/openthings/vuln/record"
)

// Facts are what other rooms know about a product. A nil function leaves its drafts empty.
type Facts struct {
	// Releases lists every published release of the product, the oldest first.
	Releases func(ctx context.Context, tenant, product string) ([]Release, error)
	// Countries counts the devices that run one of the releases by country; "" are those of which none is known.
	Countries func(ctx context.Context, tenant string, releases []string) (map[string]int64, error)
	// Class is how the product was classified.
	Class func(ctx context.Context, tenant, product string) (Class, error)
	// Advice is what an advisory about the vulnerability in the product tells users.
	Advice func(ctx context.Context, tenant, product, vulnerability string) (Advice, error)
}

// Release is a published release of a product.
type Release struct{ ID, Version string }

// Class is a product's classification in the words of the reporting platform; empty parts are not known.
type Class struct{ Type, Class, Category string }

// Advice is what users are told: what they can do, and where that stands.
type Advice struct{ Action, Source string }

// drafted is a value with where it comes from.
type drafted struct{ value, source string }

// known is what the platform knows about a case beside its events.
type known struct {
	manufacturer string
	versions     []string // affected, the oldest first
	all          []string // published
	devices      int64    // that run one of them now
	components   []string
	fixes        []string
	record       vuln.Detail
	found        bool             // a record was imported
	affected     map[string]bool  // releases
	exposed      map[string]int64 // affected devices by country
	declared     []string
	seen         map[string]int64
	support      drafted
	class        Class
	advice       Advice
}

// known asks the other rooms. What they do not know, such as a vulnerability of which no record was imported, is left out.
func (s *Service) known(ctx context.Context, t string, c Case) (k known, err error) {
	if s.cfg.Manufacturer != nil {
		if k.manufacturer, err = s.cfg.Manufacturer(ctx, t); err != nil {
			return k, err
		}
	}
	if k.declared, err = s.cfg.Products.Availability(ctx, t, c.Product); err != nil {
		return k, err
	}
	f := s.cfg.Facts
	var published []Release
	if f.Releases != nil {
		if published, err = f.Releases(ctx, t, c.Product); err != nil {
			return k, err
		}
	}
	for _, r := range published {
		k.all = append(k.all, r.Version)
	}
	cohorts, err := s.cfg.Products.Cohorts(ctx, t, c.Product)
	if err != nil {
		return k, err
	}
	if len(cohorts) > 0 {
		supported := slices.ContainsFunc(cohorts, func(x product.Cohort) bool { return !x.Ended(s.now()) })
		k.support = drafted{map[bool]string{true: "No", false: "Yes"}[supported], "the product's support periods"}
	}
	if f.Class != nil {
		if k.class, err = f.Class(ctx, t, c.Product); err != nil {
			return k, err
		}
	}
	if f.Advice != nil && c.Ref != "" {
		if k.advice, err = f.Advice(ctx, t, c.Product, c.Ref); err != nil {
			return k, err
		}
	}
	if s.cfg.Vuln != nil && c.Ref != "" {
		if err := s.exposure(ctx, t, c, &k); err != nil {
			return k, err
		}
	}
	return k, s.countries(ctx, t, published, &k)
}

// countMost is how many affected devices are told apart by country while somebody waits.
const countMost = 200_000

// countries counts where the product's devices are, the affected ones and the others each once.
func (s *Service) countries(ctx context.Context, t string, published []Release, k *known) error {
	if s.cfg.Facts.Countries == nil || k.devices > countMost {
		return nil
	}
	var others []string
	for _, r := range published {
		if !k.affected[r.ID] {
			others = append(others, r.ID)
		}
	}
	exposed, err := s.cfg.Facts.Countries(ctx, t, slices.Sorted(maps.Keys(k.affected)))
	if err != nil {
		return err
	}
	rest, err := s.cfg.Facts.Countries(ctx, t, others)
	k.exposed, k.seen = exposed, map[string]int64{}
	maps.Copy(k.seen, exposed)
	for code, n := range rest {
		k.seen[code] += n
	}
	return err
}

// exposure asks vuln what the case's vulnerability touches.
func (s *Service) exposure(ctx context.Context, t string, c Case, k *known) error {
	e, err := s.cfg.Vuln.Affected(ctx, t, c.Ref, time.Time{})
	if problem.Is(err, problem.KindNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	k.reach(e, c.Product)
	if k.record, err = s.cfg.Vuln.Get(ctx, t, c.Ref); err != nil {
		return err
	}
	k.found = true
	return nil
}

// reach counts each release once, however many of its components are concerned.
func (k *known) reach(e vuln.Exposure, of string) {
	k.affected = map[string]bool{}
	parts, fixes := map[string]bool{}, map[string]bool{}
	for _, x := range e.Releases {
		if x.Product != of || !x.Exposed {
			continue
		}
		parts[strings.TrimSpace(x.Name+" "+x.Has)] = true
		if x.FixedIn != "" {
			fixes[x.Name+" "+x.FixedIn] = true
		}
		if !k.affected[x.Release] {
			k.affected[x.Release] = true
			k.versions = append(k.versions, x.Version)
			k.devices += x.Devices
		}
	}
	k.components, k.fixes = slices.Sorted(maps.Keys(parts)), slices.Sorted(maps.Keys(fixes))
	place := map[string]int{}
	for i, v := range k.all {
		place[v] = i + 1
	}
	slices.SortStableFunc(k.versions, func(a, b string) int { return cmp.Compare(place[a], place[b]) })
}

// annex is the full list of affected versions where the field has room for some only.
func (k known) annex() []string {
	if strings.Join(k.versions, ", ") == compress(k.versions, k.all, versionRoom) {
		return nil
	}
	return k.versions
}

// versionRoom is the room of the fields for versions and for components, in characters.
const versionRoom = 255

// drafts fills fields from what is known, each with where that comes from.
func (k known) drafts(c Case, now time.Time) map[string]drafted {
	const events, fleet = "the case", "the fleet"
	record, bill := "the record of "+cmp.Or(k.record.Name, c.Ref), "the bills of materials"
	d := map[string]drafted{
		"type":          {pick(c.Kind, "Actively exploited vulnerability", "Severe incident"), events},
		"title":         {c.Title, events},
		"summary":       {c.Summary, events},
		"manufacturer":  {k.manufacturer, "the organisation's name"},
		"member_states": {stateNames(c.MemberStates), events},
		"product":       {c.ProductName, "the product"},
		"versions":      {compress(k.versions, k.all, versionRoom), "findings in the bills of materials"},
		"product_type":  {k.class.Type, "the product's classification"}, "product_class": {k.class.Class, "the product's classification"},
		"product_category": {k.class.Category, "the product's classification"},
		"support_ended":    k.support,
		"component":        {cut(k.components, versionRoom, "components"), bill},
		"user_action":      {k.advice.Action, k.advice.Source},
		"measures_users":   {k.advice.Action, k.advice.Source},
		"aware":            {instant(c.T0), events},
		"aware_si":         {instant(c.T0), events},
		"measure":          {instant(c.state.Measure), events},
		"update":           {c.state.MeasureNote, events},
		"measures_taken":   {c.state.MeasureNote, events},
		"mitigation":       {c.state.MeasureNote, events},
	}
	if !c.state.Dissemination.Expected.IsZero() {
		d["measure_expected"] = drafted{"Yes", events}
	}
	if len(k.versions) == 0 {
		// The reporting platform wants a version within 24 hours; whoever knows none by then says that, and does not guess.
		d["versions"] = drafted{"Under investigation", "nothing: no finding names a version yet"}
	}
	k.draftPEC(c, d)
	d["cve"] = drafted{named(append([]string{c.Ref}, k.record.Names...), "CVE-"), record}
	d["euvd"] = drafted{named(append([]string{c.Ref}, k.record.Names...), "EUVD-"), record}
	if len(k.versions) > 0 {
		impact := fmt.Sprintf("%s affected as of %s.", plural(k.devices, "device runs a version that is", "devices run a version that is"), now.UTC().Format("2006-01-02 15:04 UTC"))
		if len(k.exposed) > 0 {
			impact += " By country: " + byCountry(k.exposed) + "."
		}
		d["impact"], d["impact_si"] = drafted{impact, fleet}, drafted{impact, fleet}
	}
	if !k.found {
		return d
	}
	d["general"] = drafted{cmp.Or(k.record.Text, k.record.Summary), record}
	if k.record.Score != nil {
		d["attack_vector"] = drafted{attack(k.record.Score.Vector), record}
	}
	d["severity"] = drafted{severity(k.record), record}
	if d["update"].value == "" && len(k.fixes) > 0 {
		d["update"] = drafted{"The component's maker fixed it in: " + cut(k.fixes, 1000, "components") + ".", record}
	}
	return d
}

// draftPEC says what was claimed with pec.invoked, as long as the ground holds.
func (k known) draftPEC(c Case, d map[string]drafted) {
	dis := c.state.Dissemination
	if dis.Invoked.IsZero() || !dis.Lost.IsZero() {
		return
	}
	d["pec"] = drafted{"Yes", "the case"}
	i := slices.IndexFunc(Grounds, func(g groundText) bool { return g.Ground == dis.Ground })
	if f, ok := fieldAnywhere("pec_reason"); ok && i >= 0 && i < len(f.Options) {
		d["pec_reason"] = drafted{f.Options[i], "the case"}
	}
	for _, e := range c.Events {
		if e.Kind == PECInvoked {
			d["pec_info"] = drafted{e.Data.Note, "the case"}
		}
	}
}

func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// stateNames are Member States in words, as the reporting platform lists them.
func stateNames(codes []string) string {
	out := make([]string, len(codes))
	for i, code := range codes {
		out[i] = code
		if m, ok := law.State(code); ok {
			out[i] = m.Name + " (" + code + ")"
		}
	}
	return strings.Join(out, ", ")
}

// named is the first name with the prefix.
func named(names []string, prefix string) string {
	i := slices.IndexFunc(names, func(n string) bool { return strings.HasPrefix(n, prefix) })
	if i < 0 {
		return ""
	}
	return names[i]
}

// byCountry lists counts, the most first.
func byCountry(counts map[string]int64) string {
	codes := slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b)) })
	for i, code := range codes {
		codes[i] = fmt.Sprintf("%s %d", cmp.Or(code, "country unknown"), counts[code])
	}
	return strings.Join(codes, ", ")
}

func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// compress writes affected versions in at most limit characters. When they do not fit, versions that follow each other
// in the list of all become a range; a version that is not affected never lies inside one. What is left over is counted.
func compress(affected, all []string, limit int) string {
	if s := strings.Join(affected, ", "); utf8.RuneCountInString(s) <= limit {
		return s
	}
	place := map[string]int{}
	for i, v := range all {
		place[v] = i + 1
	}
	var entries []string
	sizes := []int{}
	for i := 0; i < len(affected); {
		j := i + 1
		for j < len(affected) && place[affected[j-1]] > 0 && place[affected[j]] == place[affected[j-1]]+1 {
			j++
		}
		if j-i > 2 {
			entries, sizes = append(entries, affected[i]+" to "+affected[j-1]), append(sizes, j-i)
		} else {
			for _, v := range affected[i:j] {
				entries, sizes = append(entries, v), append(sizes, 1)
			}
		}
		i = j
	}
	return cutSized(entries, sizes, limit, "versions, see the annex")
}

// cut joins entries as long as there is room, and counts the rest.
func cut(entries []string, limit int, what string) string {
	sizes := make([]int, len(entries))
	for i := range sizes {
		sizes[i] = 1
	}
	return cutSized(entries, sizes, limit, what)
}

func cutSized(entries []string, sizes []int, limit int, what string) string {
	all := strings.Join(entries, ", ")
	if utf8.RuneCountInString(all) <= limit {
		return all
	}
	rest := 0
	for n := len(entries) - 1; n > 0; n-- {
		rest += sizes[n]
		s := fmt.Sprintf("%s and %d more %s", strings.Join(entries[:n], ", "), rest, what)
		if utf8.RuneCountInString(s) <= limit {
			return s
		}
	}
	total := 0
	for _, n := range sizes {
		total += n
	}
	return fmt.Sprintf("%d %s", total, what)
}

// cvssWords are the words of the metrics that CVSS 3.x and 4.0 share, and of the effects.
var cvssWords = map[string]string{
	"AV:N": "over a network", "AV:A": "from an adjacent network", "AV:L": "with local access", "AV:P": "with physical access",
	"AC:L": "low complexity", "AC:H": "high complexity",
	"AT:N": "no special conditions", "AT:P": "special conditions needed",
	"PR:N": "no privileges needed", "PR:L": "low privileges needed", "PR:H": "high privileges needed",
	"UI:N": "no user interaction", "UI:R": "user interaction needed", "UI:P": "passive user interaction needed", "UI:A": "active user interaction needed",
	"C:N": "no loss of confidentiality", "C:L": "some loss of confidentiality", "C:H": "high loss of confidentiality",
	"I:N": "no loss of integrity", "I:L": "some loss of integrity", "I:H": "high loss of integrity",
	"A:N": "no loss of availability", "A:L": "some loss of availability", "A:H": "high loss of availability",
}

// vectorWords puts the metrics of a CVSS vector into words, in the order of the vector.
func vectorWords(vector string, metrics ...string) string {
	var out []string
	for part := range strings.SplitSeq(vector, "/") {
		name, value, _ := strings.Cut(part, ":")
		if len(name) == 2 && name[0] == 'V' { // CVSS 4.0: on the vulnerable system
			name = name[1:]
		}
		if w := cvssWords[name+":"+value]; w != "" && slices.Contains(metrics, name) {
			out = append(out, w)
		}
	}
	return strings.Join(out, ", ")
}

// attack says how an attack comes in, from a CVSS vector.
func attack(vector string) string {
	w := vectorWords(vector, "AV", "AC", "AT", "PR", "UI")
	if w == "" {
		return ""
	}
	return capital(w) + ". (" + vector + ")"
}

// severity says what a record states, and what is known about exploitation.
func severity(r vuln.Detail) string {
	var says []string
	if r.Score != nil {
		says = append(says, scoreWords(*r.Score))
	}
	if r.Exploited {
		says = append(says, "A catalogue lists it as exploited; known here since "+instant(r.ExploitedKnown)+".")
	}
	if r.EPSS != nil {
		says = append(says, fmt.Sprintf("EPSS: %.1f %% probability of an attack within 30 days.", *r.EPSS*100))
	}
	return strings.Join(says, " ")
}

func scoreWords(s record.Score) string {
	w := fmt.Sprintf("%s: CVSS %s base score %.1f", capital(s.Severity()), s.Version, s.Base)
	if s.By != "" {
		w += " as stated by " + s.By
	}
	if s.Vector != "" {
		w += " (" + s.Vector + ")"
	}
	w += "."
	if effect := vectorWords(s.Vector, "C", "I", "A"); effect != "" {
		w += " " + capital(effect) + "."
	}
	return w
}

func capital(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
