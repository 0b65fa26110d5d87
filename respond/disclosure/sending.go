// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
)

const (
	maxFields = 1 << 20   // bytes of all fields of a sending that are no files, with what each costs beside its content
	fieldCost = 128       // bytes
	maxHeld   = 200 << 20 // bytes of files of all sendings that are in memory at one time
	maxLines  = 3         // sendings with files that one address may have on their way at one time
)

// lines counts the sendings with files that are on their way, by address: who sends slowly, or never ends, keeps nobody
// else from sending.
type lines struct {
	mu   sync.Mutex // guards open
	open map[string]int
}

// take opens a line of the address, or refuses; give closes it.
func (l *lines) take(address string) (give func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[address] >= maxLines {
		return nil, problem.Limited("%d sendings from your address are on their way.", maxLines).At("file").Hint("Wait until they have arrived.")
	}
	if l.open == nil {
		l.open = map[string]int{}
	}
	l.open[address]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.open[address]--; l.open[address] == 0 {
			delete(l.open, address)
		}
	}, nil
}

// read takes a sending from a form, with or without files. Files stay in memory until they are sealed: in the clear they
// never touch the disk. When too many are on their way, files are refused and text is not. Call release in any case.
func (s *Service) read(r *http.Request) (in Intake, release func(), err error) {
	held := int64(0)
	release = func() { s.held.Add(-held) }
	if err := s.rates.Take(api.Address(r), 1); err != nil {
		return in, release, problem.Limited("Too many reports come from your address.").Hint("Try again in a few minutes, or write to one of the contacts in security.txt.").Because(err)
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" {
		r.Body = http.MaxBytesReader(nil, r.Body, 3*maxFields) // three bytes for one, as forms escape
		err := r.ParseForm()
		if long := new(http.MaxBytesError); errors.As(err, &long) {
			return in, release, problem.TooLarge("The text is too long.").At("text")
		}
		if err != nil {
			return in, release, problem.Invalid("The form could not be read.").Because(err)
		}
		return intakeOf(r.PostForm), release, nil
	}
	give, err := s.lines.take(api.Address(r))
	if err != nil {
		return in, release, err
	}
	release = func() { s.held.Add(-held); give() }
	m, err := r.MultipartReader()
	if err != nil {
		return in, release, problem.Invalid("The form could not be read.").Because(err)
	}
	r.PostForm = url.Values{}
	fields, files := int64(maxFields), []Upload(nil)
	for {
		p, err := m.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return in, release, problem.Invalid("The upload broke off.").Because(err)
		}
		if p.FileName() == "" {
			b, err := io.ReadAll(io.LimitReader(p, fields+1))
			if err != nil {
				return in, release, problem.Invalid("The upload broke off.").Because(err)
			}
			if fields -= int64(len(b) + len(p.FormName()) + fieldCost); fields < 0 {
				return in, release, problem.TooLarge("The text is too long.").At("text")
			}
			if p.FormName() != "file" { // a browser sends an empty one when no file was chosen
				r.PostForm.Add(p.FormName(), string(b))
			}
			continue
		}
		if len(files) >= maxFiles {
			return in, release, problem.TooLarge("At most %d files are taken at once.", maxFiles).At("file")
		}
		b, err := s.readFile(p, &held)
		if err != nil {
			return in, release, err
		}
		files = append(files, Upload{Name: harmless(p.FileName(), "file"), Type: harmless(p.Header.Get("Content-Type"), ""), Body: b})
	}
	in = intakeOf(r.PostForm)
	in.Files = files
	return in, release, nil
}

// maxName is how much of a file's name is kept, in characters.
const maxName = 255

// harmless is what is kept of a stranger's name for a file: its last part, in one line of characters that stand for
// themselves. A report is not lost to a name.
func harmless(name, otherwise string) string {
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	name = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) { // line breaks, marks that turn the direction of writing
			return '_'
		}
		return r
	}, name)
	if rs := []rune(name); len(rs) > maxName {
		name = string(rs[:maxName])
	}
	if strings.Trim(name, "._ ") == "" {
		return otherwise
	}
	return name
}

// readFile reads one file within the bounds of a file and of what all sendings may hold.
func (s *Service) readFile(p io.Reader, held *int64) ([]byte, error) {
	var out []byte
	for chunk := make([]byte, 64<<10); ; {
		n, err := p.Read(chunk)
		*held += int64(n)
		if s.held.Add(int64(n)) > maxHeld {
			return nil, problem.Limited("Too many files are on their way.").At("file").Hint("Send the report without files; they can be added later behind the status link.")
		}
		if out = append(out, chunk[:n]...); len(out) > maxFile {
			return nil, problem.TooLarge("A file has at most %d MB.", maxFile>>20).At("file")
		}
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, problem.Invalid("The upload broke off.").Because(err)
		}
	}
}

// intakeOf reads the fields of the form.
func intakeOf(v url.Values) Intake {
	in := Intake{Channel: "form", Product: v.Get("product"), Language: v.Get("language"),
		Finder: Finder{Name: v.Get("name"), Contact: v.Get("contact"), Credit: v.Get("credit")}}
	in.Subject, in.Exploited = v.Get("subject"), v.Get("exploited")
	if in.Exploited == "" {
		in.Exploited = "unknown"
	}
	in.Words = Words{Text: v.Get("text"), Product: v.Get("version"), Where: v.Get("where"), When: v.Get("when"), Evidence: v.Get("evidence")}
	return in
}
