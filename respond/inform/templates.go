// SPDX-License-Identifier: AGPL-3.0-only

package inform

// templates are what the platform tells by itself, plain and exact: until which month, what changes, what to do. A changed
// text gets a new day in its id; campaigns that were sent keep their words.
var templates = map[string]letterTemplate{
	"support-ends": {"support-ends@2026-11-22", map[string]templateText{
		"en": words("{{.Product}}: security support ends at the end of {{.End}}",
			`{{.Maker}} provides security support for {{.Product}} (hardware {{.Hardware}}) until the end of {{.End}}. {{if gt .Months 1}}{{.Months}} months are left, this one included.{{else}}This is its last month.{{end}}

What changes: vulnerabilities that become known after that are no longer corrected by security updates.

What to do: install the updates that are available. Decide before the end of {{.End}} whether you replace the product, take it out of service, or run it only where other networks cannot reach it. How to remove your data and take the product out of service is part of its user information.

If support is extended, you get a correction of this notice.`),
		"de": words("{{.Product}}: Der Sicherheitssupport endet mit Ablauf des Monats {{.End}}",
			`{{.Maker}} leistet Sicherheitssupport für {{.Product}} (Hardware {{.Hardware}}) bis zum Ende des Monats {{.End}}. {{if gt .Months 1}}Es bleiben {{.Months}} Monate, dieser eingeschlossen.{{else}}Dies ist der letzte Monat.{{end}}

Was sich ändert: Schwachstellen, die danach bekannt werden, werden nicht mehr durch Sicherheitsaktualisierungen behoben.

Was zu tun ist: Installieren Sie die verfügbaren Aktualisierungen. Entscheiden Sie vor Ende {{.End}}, ob Sie das Produkt ersetzen, außer Betrieb nehmen oder nur noch dort betreiben, wo andere Netze es nicht erreichen. Wie Sie Ihre Daten entfernen und das Produkt außer Betrieb nehmen, steht in den Nutzerinformationen.

Wird der Support verlängert, erhalten Sie eine Berichtigung dieser Mitteilung.`),
		"fr": words("{{.Product}} : l’assistance de sécurité prend fin à la fin {{de .End}}",
			`{{.Maker}} fournit une assistance de sécurité pour {{.Product}} (matériel {{.Hardware}}) jusqu’à la fin {{de .End}}. {{if gt .Months 1}}Il reste {{.Months}} mois, celui-ci compris.{{else}}C’est le dernier mois.{{end}}

Ce qui change : les vulnérabilités connues après cette date ne seront plus corrigées par des mises à jour de sécurité.

Ce qu’il faut faire : installez les mises à jour disponibles. Décidez avant la fin {{de .End}} de remplacer le produit, de le mettre hors service ou de ne l’utiliser que là où d’autres réseaux ne peuvent l’atteindre. Les informations destinées à l’utilisateur indiquent comment supprimer vos données et mettre le produit hors service.

Si l’assistance est prolongée, vous recevrez une rectification de cet avis.`),
	}},
	"support-ended": {"support-ended@2026-11-22", map[string]templateText{
		"en": words("{{.Product}}: security support has ended",
			`Security support of {{.Maker}} for {{.Product}} (hardware {{.Hardware}}) ended at the end of {{.End}}.

What changes: vulnerabilities that become known from now on are no longer corrected by security updates. The risk of running the product on a network grows with time.

What to do: install the last updates. Replace the product, take it out of service, or run it only where other networks cannot reach it. How to remove your data and take the product out of service is part of its user information.

If support is extended after all, you get a correction of this notice.`),
		"de": words("{{.Product}}: Der Sicherheitssupport ist beendet",
			`Der Sicherheitssupport von {{.Maker}} für {{.Product}} (Hardware {{.Hardware}}) endete mit Ablauf des Monats {{.End}}.

Was sich ändert: Schwachstellen, die von nun an bekannt werden, werden nicht mehr durch Sicherheitsaktualisierungen behoben. Das Risiko, das Produkt an einem Netz zu betreiben, wächst mit der Zeit.

Was zu tun ist: Installieren Sie die letzten Aktualisierungen. Ersetzen Sie das Produkt, nehmen Sie es außer Betrieb oder betreiben Sie es nur noch dort, wo andere Netze es nicht erreichen. Wie Sie Ihre Daten entfernen und das Produkt außer Betrieb nehmen, steht in den Nutzerinformationen.

Wird der Support doch noch verlängert, erhalten Sie eine Berichtigung dieser Mitteilung.`),
		"fr": words("{{.Product}} : l’assistance de sécurité a pris fin",
			`L’assistance de sécurité de {{.Maker}} pour {{.Product}} (matériel {{.Hardware}}) a pris fin à la fin {{de .End}}.

Ce qui change : les vulnérabilités connues à partir de maintenant ne sont plus corrigées par des mises à jour de sécurité. Le risque d’utiliser le produit sur un réseau augmente avec le temps.

Ce qu’il faut faire : installez les dernières mises à jour. Remplacez le produit, mettez-le hors service ou ne l’utilisez que là où d’autres réseaux ne peuvent l’atteindre. Les informations destinées à l’utilisateur indiquent comment supprimer vos données et mettre le produit hors service.

Si l’assistance est malgré tout prolongée, vous recevrez une rectification de cet avis.`),
	}},
	"support-extended": {"support-extended@2026-11-22", map[string]templateText{
		"en": words("{{.Product}}: correction: security support goes on until the end of {{.End}}",
			`This corrects an earlier notice, which named the end of {{.Was}}.

{{.Maker}} provides security support for {{.Product}} (hardware {{.Hardware}}) until the end of {{.End}}.

What changes: security updates go on until then.

What to do: keep installing updates. You will be told again before support ends.`),
		"de": words("{{.Product}}: Berichtigung: Sicherheitssupport bis zum Ende des Monats {{.End}}",
			`Dies berichtigt eine frühere Mitteilung, die das Ende des Monats {{.Was}} nannte.

{{.Maker}} leistet Sicherheitssupport für {{.Product}} (Hardware {{.Hardware}}) bis zum Ende des Monats {{.End}}.

Was sich ändert: Bis dahin gibt es weiterhin Sicherheitsaktualisierungen.

Was zu tun ist: Installieren Sie weiterhin Aktualisierungen. Vor dem Ende des Supports erhalten Sie wieder eine Mitteilung.`),
		"fr": words("{{.Product}} : rectification : assistance de sécurité jusqu’à la fin {{de .End}}",
			`Cet avis rectifie un avis antérieur, qui indiquait la fin {{de .Was}}.

{{.Maker}} fournit une assistance de sécurité pour {{.Product}} (matériel {{.Hardware}}) jusqu’à la fin {{de .End}}.

Ce qui change : les mises à jour de sécurité continuent jusque-là.

Ce qu’il faut faire : continuez d’installer les mises à jour. Vous serez de nouveau informé avant la fin de l’assistance.`),
	}},
	"ceasing": {"ceasing@2026-11-22", map[string]templateText{
		"en": words("{{.Maker}} ceases operations on {{.Day}}",
			`{{.Maker}} ceases operations on {{.Day}} and can then no longer meet its obligations for its products (Regulation (EU) 2024/2847, Article 13(23)).

What changes: after that day {{.Maker}} issues no security updates and answers no reports of vulnerabilities.

What to do: install the updates that are available, and keep copies of firmware, documentation and your own data before that day. Decide whether you replace the products, take them out of service, or run them only where other networks cannot reach them.

If the day changes, you are told again. The newest notice counts.`),
		"de": words("{{.Maker}} stellt den Betrieb am {{.Day}} ein",
			`{{.Maker}} stellt den Betrieb am {{.Day}} ein und kann danach die Pflichten für die eigenen Produkte nicht mehr erfüllen (Verordnung (EU) 2024/2847, Artikel 13 Absatz 23).

Was sich ändert: Nach diesem Tag gibt {{.Maker}} keine Sicherheitsaktualisierungen heraus und beantwortet keine Meldungen von Schwachstellen.

Was zu tun ist: Installieren Sie die verfügbaren Aktualisierungen und sichern Sie vor diesem Tag Firmware, Dokumentation und Ihre eigenen Daten. Entscheiden Sie, ob Sie die Produkte ersetzen, außer Betrieb nehmen oder nur noch dort betreiben, wo andere Netze sie nicht erreichen.

Ändert sich der Tag, erhalten Sie eine neue Mitteilung. Es gilt die neueste.`),
		"fr": words("{{.Maker}} cesse ses activités le {{.Day}}",
			`{{.Maker}} cesse ses activités le {{.Day}} et ne pourra plus, ensuite, remplir ses obligations pour ses produits (règlement (UE) 2024/2847, article 13, paragraphe 23).

Ce qui change : après ce jour, {{.Maker}} ne publie plus de mises à jour de sécurité et ne répond plus aux signalements de vulnérabilités.

Ce qu’il faut faire : installez les mises à jour disponibles et conservez, avant ce jour, des copies des micrologiciels, de la documentation et de vos propres données. Décidez de remplacer les produits, de les mettre hors service ou de ne les utiliser que là où d’autres réseaux ne peuvent les atteindre.

Si la date change, vous en serez informé. Le dernier avis est celui qui compte.`),
	}},
}
