// SPDX-License-Identifier: AGPL-3.0-only

package product

import (
	"strconv"
	"time"
)

// publicWords are the words of the public page by language. Keys that begin with cra.ii are the headings of its items.
var publicWords = map[string]map[string]string{
	"en": {
		"skip": "To the content", "title": "Product information", "model": "Type", "by": "Manufacturer", "until": "Security updates until the end of", "ended": "Security updates have ended",
		"ended-warning": "Support of these units ended at the end of %s. Vulnerabilities that become known are no longer fixed; continued use is at a growing risk.",
		"units":         "Units", "placed": "placed on the market", "from": "from", "to": "to", "still": "still sold", "end": "Security support ends", "kind": "Security support", "update": "Updates",
		"feature": "Updates with functions end", "sales": "Sale ends", "service": "Services end", "successor": "Followed by", "latest": "Only the latest version gets security updates", "zone": "at the last instant of the month",
		"information": "User information", "not-applicable": "Does not apply", "other-language": "in English only", "machine": "For machines", "changes": "All changes with signatures",
		"updated": "As of", "languages": "Languages", "since": "Declared", "none": "No support period is published yet.",
		"cra.ii.1": "Manufacturer and contact", "cra.ii.2": "Reporting vulnerabilities", "cra.ii.3": "Name and type", "cra.ii.4": "Intended purpose and security properties",
		"cra.ii.5": "Circumstances with significant risks", "cra.ii.6": "EU declaration of conformity", "cra.ii.7": "Technical security support", "cra.ii.8": "Secure use from commissioning to the end of life",
		"cra.ii.9": "How changes affect the security of data", "cra.ii.10": "Installing security updates", "cra.ii.11": "Decommissioning and removal of data", "cra.ii.12": "Turning automatic security updates off",
		"cra.ii.13": "For integrators", "cra.ii.14": "Software bill of materials",
	},
	"de": {
		"skip": "Zum Inhalt", "title": "Produktinformation", "model": "Typ", "by": "Hersteller", "until": "Sicherheitsaktualisierungen bis Ende", "ended": "Sicherheitsaktualisierungen sind beendet",
		"ended-warning": "Die Unterstützung dieser Geräte endete mit Ablauf des %s. Bekannt werdende Schwachstellen werden nicht mehr behoben; die weitere Nutzung ist mit wachsendem Risiko verbunden.",
		"units":         "Geräte", "placed": "in Verkehr gebracht", "from": "ab", "to": "bis", "still": "noch im Verkauf", "end": "Sicherheitsunterstützung endet", "kind": "Sicherheitsunterstützung", "update": "Aktualisierungen",
		"feature": "Funktionsaktualisierungen enden", "sales": "Verkauf endet", "service": "Dienste enden", "successor": "Nachfolger", "latest": "Nur die neueste Version erhält Sicherheitsaktualisierungen", "zone": "mit Ablauf des Monats",
		"information": "Nutzerinformation", "not-applicable": "Trifft nicht zu", "other-language": "nur auf Englisch", "machine": "Für Maschinen", "changes": "Alle Änderungen mit Signaturen",
		"updated": "Stand", "languages": "Sprachen", "since": "Erklärt", "none": "Es ist noch kein Unterstützungszeitraum veröffentlicht.",
		"cra.ii.1": "Hersteller und Kontakt", "cra.ii.2": "Schwachstellen melden", "cra.ii.3": "Name und Typ", "cra.ii.4": "Zweckbestimmung und Sicherheitseigenschaften",
		"cra.ii.5": "Umstände mit erheblichen Risiken", "cra.ii.6": "EU-Konformitätserklärung", "cra.ii.7": "Technische Sicherheitsunterstützung", "cra.ii.8": "Sichere Nutzung von der Inbetriebnahme bis zum Ende der Lebensdauer",
		"cra.ii.9": "Wie Änderungen die Sicherheit von Daten beeinflussen", "cra.ii.10": "Sicherheitsaktualisierungen installieren", "cra.ii.11": "Außerbetriebnahme und Löschen von Daten",
		"cra.ii.12": "Automatische Sicherheitsaktualisierungen abschalten", "cra.ii.13": "Für Integratoren", "cra.ii.14": "Software-Stückliste",
	},
}

var germanMonths = [...]string{"Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober", "November", "Dezember"}

// localMonth writes a month as readers of the language do.
func localMonth(lang string, m Month) string {
	if lang != "de" {
		return m.Words()
	}
	t := m.first(time.UTC)
	return germanMonths[t.Month()-1] + " " + strconv.Itoa(t.Year())
}

// localDay writes a day as readers of the language do.
func localDay(lang string, d Day) string {
	t := d.Time()
	if lang == "de" {
		return strconv.Itoa(t.Day()) + ". " + germanMonths[t.Month()-1] + " " + strconv.Itoa(t.Year())
	}
	return t.Format("2 January 2006")
}
