// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/update"
)

// SafeVersion says for a hardware revision of a product from which security version on it is safe, as far as is known.
// Every release that was ever published counts, withdrawn ones too: their signatures stay good, so whoever controls the
// way to a device can bring it any of them that its security version lets it install.
type SafeVersion struct {
	HW    string `json:"hw" doc:"Name of the hardware revision"`
	Safe  Floor  `json:"safe" doc:"Nothing at or above it is known to be exploited, unless it was decided to be harmless there. This is the floor that deployments are held to"`
	Clean Floor  `json:"clean" doc:"Nothing at or above it has a finding that is undecided, under investigation or affected"`
}

// Floor is a lowest security version.
type Floor struct {
	SecurityVersion int64    `json:"security_version"`
	Release         string   `json:"release,omitempty" doc:"The first published release from which on all are good; absent: there is none yet"`
	Version         string   `json:"version,omitempty"`
	Firm            bool     `json:"firm" doc:"That release is signed with at least the security version: devices that installed it refuse what is not good"`
	Because         []string `json:"because" doc:"What keeps it from being lower; empty: nothing, every release is good"`

	past update.Release // the last that is not good
}

// lowest finds the floor of one hardware revision. releases are in the order of their publication, in which the security
// version never falls; bad tells what is wrong in each.
func lowest(releases []update.Release, bad map[string][]string) Floor {
	f := Floor{Because: []string{}}
	good := 0
	for i, r := range releases {
		if len(bad[r.ID]) > 0 {
			good = i + 1
		}
	}
	if good > 0 {
		f.past = releases[good-1]
		f.SecurityVersion = f.past.SecurityVersion + 1
		f.Because = append(f.Because, fmt.Sprintf("%s in %s (security version %d)", few(bad[f.past.ID]), f.past.Version, f.past.SecurityVersion))
	}
	if good < len(releases) {
		r := releases[good]
		if good == 0 {
			f.SecurityVersion = r.SecurityVersion
		}
		f.Release, f.Version, f.Firm = r.ID, r.Version, r.SecurityVersion >= f.SecurityVersion
	}
	return f
}

// few names the first of many.
func few(names []string) string {
	const shown = 3
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > shown {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), len(names)-shown)
	}
	return strings.Join(names, ", ")
}

// byHardware sorts releases by the hardware revisions that they are made for.
func byHardware(releases []update.Release) map[string][]update.Release {
	out := map[string][]update.Release{}
	for _, r := range releases {
		for _, hw := range r.HW {
			out[hw] = append(out[hw], r)
		}
	}
	return out
}

// attacked are the vulnerabilities that are known as exploited, open, and not decided to be harmless, by release.
func (s *Service) attacked(tx *store.Tx, tenant string, releases []update.Release) (map[string][]string, error) {
	ids := make([]string, len(releases))
	for i, r := range releases {
		ids[i] = r.ID
	}
	found, err := s.openExploited(tx, tenant, ids)
	bad := map[string][]string{}
	for o, in := range found {
		for _, id := range in {
			bad[id] = append(bad[id], o.name)
		}
	}
	return bad, err
}

// adviseFloors tells the stage that deploys what is safe in the products of releases, in the transaction that found out.
func (s *Service) adviseFloors(tx *store.Tx, tenant string, releases []string) error {
	if s.cfg.Update == nil {
		return nil
	}
	about, err := s.releases(tx, tenant, releases)
	if err != nil {
		return err
	}
	products := map[string]bool{}
	for _, r := range about {
		products[r.Product] = true
	}
	for _, product := range sortedKeys(products) {
		published, err := s.cfg.Update.EverPublished(tx, tenant, product)
		if err != nil {
			return err
		}
		bad, err := s.attacked(tx, tenant, published)
		if err != nil {
			return err
		}
		var floors []update.AdvisedFloor
		by := byHardware(published)
		for _, hw := range sortedKeys(by) {
			if f := lowest(by[hw], bad); len(f.Because) > 0 {
				floors = append(floors, update.AdvisedFloor{HW: hw, SecurityVersion: f.SecurityVersion, Past: f.past.Published,
					Because: "known to be exploited: " + strings.Join(f.Because, "; ")})
			}
		}
		if err := s.cfg.Update.AdviseFloors(tx, tenant, product, floors, system); err != nil {
			return err
		}
	}
	return nil
}

// SafeVersions says for each hardware revision of a product what is safe, and what is clean.
func (s *Service) SafeVersions(ctx context.Context, tenant, product string) ([]SafeVersion, error) {
	out := []SafeVersion{}
	if s.cfg.Update == nil {
		return out, nil
	}
	var published []update.Release
	var exploited map[string][]string
	err := s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		if published, err = s.cfg.Update.EverPublished(tx, tenant, product); err != nil {
			return err
		}
		exploited, err = s.attacked(tx, tenant, published)
		return err
	})
	if err != nil {
		return nil, err
	}
	open := map[string][]string{}
	for _, r := range published {
		found, err := s.OpenFindings(ctx, tenant, r.ID)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			if f.Status != NotAffected && f.Status != Fixed {
				open[r.ID] = append(open[r.ID], f.Group.Name)
			}
		}
	}
	by := byHardware(published)
	for _, hw := range sortedKeys(by) {
		out = append(out, SafeVersion{HW: hw, Safe: lowest(by[hw], exploited), Clean: lowest(by[hw], open)})
	}
	return out, nil
}
