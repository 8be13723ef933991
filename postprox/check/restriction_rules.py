"""Misspelt restrictions of smtpd(8).

Rule: each check is a pure function.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from . import fixes
from .findings import Fault
from .fixes import Edit
from .policy_rules import RESTRICTIONS
from .postconf import Configuration, Service

#: The restrictions that Postfix supports (postconf(5)).
_KNOWN = (
    *("check_ccert_access", "check_client_a_access", "check_client_access"),
    *("check_client_mx_access", "check_client_ns_access", "check_etrn_access"),
    *("check_helo_a_access", "check_helo_access", "check_helo_mx_access", "check_helo_ns_access"),
    *("check_policy_service", "check_recipient_a_access", "check_recipient_access"),
    *("check_recipient_mx_access", "check_recipient_ns_access"),
    *("check_reverse_client_hostname_a_access", "check_reverse_client_hostname_access"),
    *("check_reverse_client_hostname_mx_access", "check_reverse_client_hostname_ns_access"),
    *("check_sasl_access", "check_sender_a_access", "check_sender_access"),
    *("check_sender_mx_access", "check_sender_ns_access"),
    *("defer", "defer_if_permit", "defer_if_reject", "defer_unauth_destination"),
    *("permit", "permit_auth_destination", "permit_dnswl_client", "permit_inet_interfaces"),
    *("permit_mx_backup", "permit_mynetworks", "permit_naked_ip_address", "permit_rhswl_client"),
    *("permit_sasl_authenticated", "permit_tls_all_clientcerts", "permit_tls_clientcerts"),
    *("reject", "reject_authenticated_sender_login_mismatch"),
    "reject_known_sender_login_mismatch",
    *("reject_invalid_helo_hostname", "reject_invalid_hostname", "reject_maps_rbl"),
    *("reject_multi_recipient_bounce", "reject_non_fqdn_helo_hostname"),
    *("reject_non_fqdn_hostname", "reject_non_fqdn_recipient", "reject_non_fqdn_sender"),
    *("reject_plaintext_session", "reject_rbl_client", "reject_rhsbl_client"),
    *("reject_rhsbl_helo", "reject_rhsbl_recipient", "reject_rhsbl_reverse_client"),
    *("reject_rhsbl_sender", "reject_sender_login_mismatch", "reject_unauth_destination"),
    *("reject_unauth_pipelining", "reject_unauthenticated_sender_login_mismatch"),
    *("reject_unknown_client", "reject_unknown_client_hostname"),
    *("reject_unknown_forward_client_hostname", "reject_unknown_helo_hostname"),
    *("reject_unknown_hostname", "reject_unknown_recipient_domain"),
    *("reject_unknown_reverse_client_hostname", "reject_unknown_sender_domain"),
    *("reject_unlisted_recipient", "reject_unlisted_sender", "reject_unverified_recipient"),
    *("reject_unverified_sender", "warn_if_reject"),
)
#: A word that can only be a restriction, and not the name of a table or of a server.
_WORD = re.compile(r"(?<![^\s,{}])(?:permit|reject|defer|check|warn)_\w+(?=[\s,{}]|$)")
#: The minimum similarity, from 0 to 1, of a misspelt restriction to the right one.
_SIMILAR = 0.85


def misspelt(configuration: Configuration) -> Iterator[Fault]:
    """Report unknown restrictions, because of which smtpd(8) refuses all mail (451)."""
    classes = re.split(r"[,\s]+", configuration.parameter("smtpd_restriction_classes"))
    known = {*_KNOWN, *classes}
    for service, name, value in _lists(configuration):
        wrong = [word for word in _WORD.findall(value) if word.lower() not in known]
        near = {word: difflib.get_close_matches(word, _KNOWN, 1, _SIMILAR) for word in wrong}
        found = {word: right[0] for word, right in near.items() if right}
        if found:
            yield Fault(
                "value",
                f"master.cf, {service.label}" if service else "main.cf",
                f"{name} contains {' and '.join(found)}, which Postfix does not know; mail is "
                "refused or deferred (451)",
                (_corrected(service, name, value, found),),
            )


def _lists(configuration: Configuration) -> Iterator[tuple[Service | None, str, str]]:
    """Yield all restriction lists, each with its service, or None for main.cf."""
    for name in RESTRICTIONS:
        yield None, name, configuration.main.get(name, "")
        for service in configuration.services:
            yield service, name, service.own.get(name, "")


def _corrected(service: Service | None, name: str, value: str, found: dict[str, str]) -> Edit:
    def change(old: str) -> str:
        return _WORD.sub(lambda each: found.get(each[0], each[0]), old)

    if service is None:
        return fixes.change_main(name, change)
    return fixes.set_own(service, name, change(value))
