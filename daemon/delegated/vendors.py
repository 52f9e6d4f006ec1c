"""The shapes of the vendors' secrets: prefix, alphabet and length as each vendor documents them. Data, not code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Shape:
    """One shape: its kind, its pattern, and words (lower case) of which one occurs in every text with such a secret.

    The secret is the pattern's last group, or the whole match. No letter or digit stands before it. Every repeat is
    bounded, so that hostile text costs linear time.
    """

    kind: str
    hints: tuple[str, ...]
    pattern: re.Pattern[str]


_TABLE: Final = r"""
openai         sk-          sk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{20,300}
openai         t3blbkfj     sk-[A-Za-z0-9_-]{10,100}T3BlbkFJ[A-Za-z0-9_-]{10,100}
anthropic      sk-ant-      sk-ant-[A-Za-z0-9_-]{20,300}
openrouter     sk-or-       sk-or-v1-[0-9a-f]{40,80}
openai         sk-          sk-[A-Za-z0-9]{32,64}
github         ghp_,gho_,ghu_,ghs_,ghr_  gh[pousr]_[A-Za-z0-9]{30,255}
github         github_pat_  github_pat_[A-Za-z0-9_]{22,255}
gitlab         glpat-  glpat-[A-Za-z0-9_.-]{20,300}
gitlab         t-       gl(?:dt|rt|ptt|ft|cbt|soat|agent|imt|ffct)-[A-Za-z0-9_.-]{20,300}
aws-key-id     akia,asia,abia,acca  (?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}
google         aiza         AIza[0-9A-Za-z_-]{35}
google         ya29.        ya29\.[0-9A-Za-z_-]{20,500}
google         gocspx-      GOCSPX-[A-Za-z0-9_-]{28}
slack          xox          xox[abeoprs](?:\.xox[bp])?-[A-Za-z0-9-]{10,300}
slack          xapp-        xapp-[0-9]-[A-Za-z0-9-]{20,200}
slack-webhook  hooks.slack  https://hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{20,200}
discord-webhook  webhooks   https://(?:[a-z]{1,10}\.)?discord(?:app)?\.com/api/webhooks/[0-9]{5,30}/[A-Za-z0-9_-]{30,120}
teams-webhook  webhook.office  https://[a-z0-9-]{1,60}\.webhook\.office\.com/webhookb2/[A-Za-z0-9@/-]{40,300}
stripe         sk_live,sk_test,sk_prod,rk_live,rk_test,rk_prod  (?:sk|rk)_(?:live|test|prod)_[A-Za-z0-9]{16,250}
stripe         whsec_       whsec_[A-Za-z0-9+/=]{24,200}
twilio         sk  SK[0-9a-f]{32}
sendgrid       sg.          SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}
npm            npm_         npm_[A-Za-z0-9]{36}
npm            _authtoken   _authToken\s{0,3}=\s{0,3}([^\s$"']{8,400})
pypi           pypi-        pypi-[A-Za-z0-9_-]{50,1000}
huggingface    hf_          hf_[A-Za-z0-9]{30,60}
huggingface    api_org_     api_org_[A-Za-z]{34}
digitalocean   _v1_         do[opr]_v1_[0-9a-f]{64}
azure-storage  accountkey   AccountKey=([A-Za-z0-9+/]{40,100}={0,2})
azure-key      sharedaccess  SharedAccessKey=([A-Za-z0-9+/]{30,100}={0,2})
azure-sas      sig=         [?&]sig=([A-Za-z0-9%+/]{30,120}(?:%3[Dd]|=){0,2})
azure-client   q~           [A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}
jwt            eyj          eyJ[A-Za-z0-9_-]{10,500}\.eyJ[A-Za-z0-9_-]{10,4000}(?:\.[A-Za-z0-9_-]{0,2000})?
telegram       :aa          [0-9]{8,10}:AA[A-Za-z0-9_-]{33}
discord        discord,bot,token  [MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,45}
mailgun        key-         key-[0-9a-f]{32}
mailgun        mailgun  [0-9a-f]{32}-[0-9a-f]{8}-[0-9a-f]{8}
mailchimp      -us          [0-9a-f]{32}-us[0-9]{1,2}
square         sq0          sq0(?:atp|csp|idp)-[A-Za-z0-9_-]{22,60}
square         eaaa         EAAA[A-Za-z0-9_-]{60}
shopify        shp          shp(?:at|ca|pa|ss|tka)_[0-9a-fA-F]{32}
databricks     dapi         dapi[0-9a-f]{32}(?:-[0-9])?
vault          hv           hv[bsr]\.[A-Za-z0-9_-]{24,300}
age            age-secret   AGE-SECRET-KEY-1[0-9A-Z]{58}
docker         dckr_        dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,60}
linear         lin_         lin_(?:api|oauth)_[A-Za-z0-9]{32,80}
notion         secret_      secret_[A-Za-z0-9]{43}
notion         ntn_         ntn_[A-Za-z0-9]{40,60}
figma          figd_        figd_[A-Za-z0-9_-]{40,60}
airtable       pat  pat[A-Za-z0-9]{14}\.[0-9a-f]{64}
atlassian      atatt3,atctt3,atbb,atskt  AT(?:ATT3|CTT3|BB|SKT)[A-Za-z0-9_=-]{24,300}
terraform      .atlasv1.    [A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,80}
pulumi         pul-         pul-[0-9a-f]{40}
grafana        glc_  glc_[A-Za-z0-9+/=]{32,400}
grafana        glsa_        glsa_[A-Za-z0-9]{32}_[0-9a-fA-F]{8}
newrelic       nra          NRA[KL]-[A-Z0-9]{27}
sentry         sntry        sntry[su]_[A-Za-z0-9+/=_-]{40,400}
planetscale    pscale_      pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.=-]{30,80}
postman        pmak-        PMAK-[0-9a-f]{24}-[0-9a-f]{34}
rubygems       rubygems_    rubygems_[0-9a-f]{48}
doppler        dp.          dp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9_.-]{36,80}
fly            fo1_         fo1_[A-Za-z0-9_-]{43}
groq           gsk_         gsk_[A-Za-z0-9]{40,80}
xai            xai-         xai-[A-Za-z0-9]{60,100}
perplexity     pplx-        pplx-[A-Za-z0-9]{40,64}
replicate      r8_          r8_[A-Za-z0-9]{37}
supabase       sbp_,sb_secret_  sb(?:p|_secret)_[A-Za-z0-9_]{30,60}
dynatrace      dt0          dt0[a-z][0-9]{2}\.[A-Z0-9]{24}\.[A-Z0-9]{64}
heroku         hrku-        HRKU-[A-Za-z0-9_-]{36,80}
cloudflare     v1.0-        v1\.0-[0-9a-f]{24}-[0-9a-f]{146}
alibaba        ltai         LTAI[A-Za-z0-9]{12,24}
crates         cio          cio[A-Za-z0-9]{32}
facebook       eaac         EAACEdEose0cBA[A-Za-z0-9]{20,300}
"""


def _row(line: str) -> Shape:
    kind, hints, pattern = line.split(maxsplit=2)
    return Shape(kind, tuple(hints.split(",")), re.compile(pattern))


SHAPES: Final = tuple(_row(line) for line in _TABLE.strip().split("\n"))
