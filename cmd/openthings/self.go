// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/conform/self"
)

// selfCommand prints what the program says about itself, without a platform.
func selfCommand() *cobra.Command {
	var from, version, day string
	var asJSON bool
	// of reads the program that is asked about.
	of := func() (self.Program, error) {
		r := self.Stamped()
		if version != "" || day != "" {
			var err error
			if r, err = self.ParseRelease(version, day); err != nil {
				return self.Program{}, err
			}
		}
		return self.ReadFile(from, r)
	}
	show := func(c *cobra.Command, v any, human func(w io.Writer) error) error {
		if asJSON {
			return printJSON(c.OutOrStdout(), v)
		}
		return human(c.OutOrStdout())
	}
	sub := func(use, short string, run func(c *cobra.Command, p self.Program) error) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
			p, err := of()
			if err != nil {
				return err
			}
			return run(c, p)
		}}
	}
	raw := func(c *cobra.Command, b []byte, err error) error {
		if err == nil {
			_, err = c.OutOrStdout().Write(b)
		}
		return err
	}

	c := sub("self", "What this program says about itself: parts, support, class, risks, declaration draft", func(c *cobra.Command, p self.Program) error {
		f, err := p.Make(time.Now())
		if err != nil {
			return err
		}
		return show(c, f, func(w io.Writer) error {
			fmt.Fprintf(w, "%s %s, SHA-256 %s\n%d parts, grade %s\n%s\n%s: %s\n", p.Name, p.Version, p.SHA256, f.Parts, f.Quality.Grade, f.Support.Sentence(), f.Class.ClassName, f.Class.Category.Title)
			for _, x := range f.Open {
				fmt.Fprintf(w, "open: %s\n", x)
			}
			return nil
		})
	})
	c.Long = "What this program says about itself, computed from its own file. Every installation serves the same below /self, to everybody.\n" +
		"With --program the file of another program of a release, such as openthings-agent."
	c.Example = `  openthings self
  openthings self sbom > openthings.cdx.json
  openthings self sbom --program openthings-agent --version 1.4.0 --published 2027-03-01`
	f := c.PersistentFlags()
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.StringVar(&from, "program", "", "file of a program that was built from this repository; default: this one")
	f.StringVar(&version, "version", "", "the release that it is; default: the one it was built as")
	f.StringVar(&day, "published", "", "the day on which that release was published")
	c.AddCommand(
		sub("sbom", "Bill of materials, CycloneDX 1.6, bound to the file by its digest", func(c *cobra.Command, p self.Program) error {
			b, err := p.Bill()
			return raw(c, b, err)
		}),
		sub("support", "Until when this version gets security updates, and why so long", func(c *cobra.Command, p self.Program) error {
			s := p.Support()
			return show(c, s, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s\n%s\n", s.Sentence(), s.Reason)
				return err
			})
		}),
		sub("policy", "Policy on vulnerabilities of this program, and how to report one", func(c *cobra.Command, _ self.Program) error {
			return show(c, map[string]string{"policy": self.Policy()}, func(w io.Writer) error {
				_, err := io.WriteString(w, self.Policy())
				return err
			})
		}),
		sub("security.txt", "Where to report (RFC 9116)", func(c *cobra.Command, _ self.Program) error {
			text := self.SecurityTxt(time.Now())
			return show(c, map[string]string{"security_txt": text}, func(w io.Writer) error {
				_, err := io.WriteString(w, text)
				return err
			})
		}),
		sub("classification", "Class under the Cyber Resilience Act with its reasons, and the procedures that are open", func(c *cobra.Command, _ self.Program) error {
			x := self.Classify(time.Now())
			return show(c, x, func(w io.Writer) error {
				fmt.Fprintf(w, "%s, decided on %s\n%s: %q\n%s\n", x.ClassName, x.Decided, x.Category.Ref(), x.Category.Says, x.Reason)
				for _, o := range x.Considered {
					fmt.Fprintf(w, "considered %s (fits: %s): %s\n", o.Ref(), yes(o.Fits), o.Reason)
				}
				_, err := fmt.Fprintf(w, "%s. %s\n", x.Module.Name(), x.RouteWhy)
				return err
			})
		}),
		sub("risk", "Risk assessment with the 22 rows of Annex I", func(c *cobra.Command, _ self.Program) error {
			x := self.Assess()
			return show(c, x, func(w io.Writer) error {
				rows := [][]string{{"ROW", "REFERENCE", "APPLIES", "HOW IT IS MET", "TESTS"}}
				for _, r := range x.Rows {
					rows = append(rows, []string{r.ID, r.Ref, r.Applies, r.Treatment, strings.Join(r.Tests, " ")})
				}
				return table(w, rows)
			})
		}),
		sub("information", "Information for users and integrators (Annex II)", func(c *cobra.Command, p self.Program) error {
			x := p.Information()
			return show(c, x, func(w io.Writer) error {
				for _, i := range x {
					fmt.Fprintf(w, "%s: %s\n  %s\n", i.Ref, i.Asks, i.Text)
				}
				return nil
			})
		}),
		sub("declaration", "Draft of the EU declaration of conformity; it is not signed and declares nothing", func(c *cobra.Command, p self.Program) error {
			d := p.Declaration(time.Now())
			return show(c, d, func(w io.Writer) error {
				_, err := io.WriteString(w, d.Text())
				return err
			})
		}),
		sub("eox", "End of support as an OpenEoX Core document", func(c *cobra.Command, p self.Program) error {
			b, err := p.EoX()
			return raw(c, append(b, '\n'), err)
		}),
		sub("vex", "What the project decided about known vulnerabilities of its parts, as OpenVEX; nothing while there is nothing", func(c *cobra.Command, p self.Program) error {
			b, err := p.VEX()
			return raw(c, b, err)
		}),
	)
	return c
}
