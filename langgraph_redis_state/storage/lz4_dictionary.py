"""The built-in LZ4 dictionary: field names and shapes that LangGraph states and records repeat.

Part of layout 1: what was compressed with it can only be read with it, so it never changes. A better one would be a new
compression code beside it. It holds serialized empty messages, an interrupt, a Send, and one checkpoint with its metadata.
"""

from __future__ import annotations

from base64 import b85decode

DICTIONARY = b85decode(
    "mB%{+l&EB3bY*mDZDpurVRU75X>Db>GB7eWEif@HFfmjxFgh?WIxsLRFfckWFs){CZ*6IFZ)R_DZDDlB766l{WMyM%ZDDMuL}g=XZDDMrF)lDL$1"
    "MPpq;+*^WTaJ9NkrKoFfcGMFfcGMFfcGMFfcGMFfcGMFfcGMFfcGMFfcGM*Z`BLVs&Y3bZKsLqjP0+kpagQ0h6d?VRU75X>DbsWMOn=lg$U}0RfT"
    "6YXXz6Y+-I^XL4b1XfAYlaAk9;Np5sya&mQWbc3aKVQh6}fv9nHWpi|CZ*HhzaBy;Oc4a@JX=K?TFfcGMFfcGMFfcGMFfcGMFfcGMFfcGMFfcGMF"
    "fcGMuX1H`aBpsNWnXh+Xk~3-z>&u%0h6z6VQyz<a$#_2E_8WtWpkucWo~4Wq;79yWr3(|Wpi_3XJvDclE<Y5l)h|XZf9d?VQFq(V{dY0E^TFVb75"
    "y?b1rjvb97~Gty6h(bY*Q#Wpi_3XJv+`V{dMBWo~r5S#Nb9VRB_4VIXK_Y;b0EY#?ECb7^yQVQzFTv0-FnX>@6CZeeU+Yj<ICXLEqDa%FRHZ*FsC"
    "Uu|V{VPs)+VSuD`d2nT>b9r-gWo@KxVQpo=qG@EIc(ZM9WMyn$c42I3WMOn=Uutu2ZpXI;l)P+VZf9d?VQFq(V{dY0E^TFVb75y?b1rmmZ)~enZ*"
    "Oc(Wpi_3XJv_}V{dMBWo~q$Z)>q(WMpY{X>V>}Y+q}4VRC14fU$CAb8v5Nb7fy`WprU=VRT`Dq;z?3Wu$a(Z)~J)VQpomb7f(2V`!pjWTAMhbZ>8"
    "LUt?ixY+q?)rDI`iY+tBha&&2CVPkZ_rgL;*baiv5b9G~5Wpi`0ZEs{{Y+rU^Y-wa+bY)*^b8l{u$O5<pl)7wTZf9d?VQFq(V{dY0E^TFVb75y?b"
    "1q?NsX<9iWpi_3XJv_}V{dMBWo~q!v0-FnX>@6CZeeU+Yj<ICXLEqDa%FRHZ*FsCUu|V{VPs)+VTh}AZ);_4Uv+a~XJv)4V{dJ6Y-Mz5Z*E_7Z);"
    "_4a{;Yza&K*LbYFCDYh`Y80jzXybYW~?bZ={AZgT>;V{dJ6Y-Mz5Z*E_7Z);_4b6;d-bYW?1bA-BKV`F7-bY)~;aB^j2X=8M0Z*E_7Z);_4a{#Pi"
    "b!2I8UvzJ4Wo~l-uySQ#b8l{GZf9R~Z);_4a{#(>Wol((bY)~;aB^j2X=8M0Z*E_7Z);_4a{#q)a&K*LbYFCDYh`Y8Uu0!;VQFl0f~;Y6WNB|-bZ"
    "={AZgT*wV_{=xWn^D;Z);_4a{#JsZ)9a`Uv6P-Wu#|tbS<uJZ)9a`UvP47c4=f~a;9%^Wo}_<vU7QJbY*Q{W@&C`WpZ$GX>N4Dt!8O%X>({_a%Ew"
    "2Z*HV>bZ>B|Y;R|9a&KaDz^ij~Z*X67Wnpt~Zm4B$WM6c3a&Dq&WTb6#XJ4drd2nT-VQHjpVQpo=qG@EMa&>MkEvj^HZ){&<VQg%3k%XjfVQpomb"
    "7f(2V`!vda%XdarEzs-a(SSlX=J5iVQg$)q;z?3WvO&;Z){&<VQg%&X>N95Y-wa)bZ>8LUt?ixY;%yVb#q~7WnXP&bYWy+bYX?8X>M?JbYFCDYh`"
    "Y80j+O!bZ~WaUvzJ4Wo~l;taNX5VQgP?Z);_4a{{wzZg6#UUvzJ4Wo}<&WprU_Y;%IHV_{=xWnW`*Wnpw_Z*BmpV_{=xWnXe-VPpWbZ*_EVb#z~J"
    "Z);_4Uu0!;VQFl0fvIw3VRLV8X>Ml#vu$r=Wo%z|VQgt+VRU6*YIARHk;jGwl)Y?WZf9d?VQFq(V{dY0E^TFVb75y?b1rCgZDDS#NOf&tZcSx#b7"
    "5y?hNok1ZggdCbfB?eWMpY{X>V>}Y+q}4VRC14fU$CAb8v5Nb7fy`WprU=VRT`Dq;z?3Wu<6!ZDDStZeeX@z@lknp?I@xZ)9a`Uv^<^X=Gt^WnXG"
    "@Z*G&PZF6UEVPk8>0$-Aap>_nKbaUAtGB7eWEif@HFfmjxFgh?WIxsLUFfcGMFfc1HFgh?Wuw!UpZf<34Uv_13b7^mGbBC#4UvqR}a&%u`0;p|eb"
    "8}&5Wpe|sVsc?_V`w^bZ#rRTWo~o>uVQjxZewUVbZ<IzZ*OdK1g>9SaB^j5Wo%z`VRLJ90jghLa%FRMZDn6y0j*zOX>N37a&mQWbYEWqt#)N{b7^"
    "mGb6<01Wp0M4Utei%aCLNFUx2M&UukZ1WpZ+LaCBc^gQ;I%b97;HbYEWrsBL9)b75y?a|5qpa$#;`XgYLnI$>vJZgc~wUte={VRCd|UxBG#UvqR}"
    "a&%u`0i|JQWo~qVuVQjxZewUVbZ<IgXJu}50;P0sZ)|gcuVQjxZewUVbZ<IzZ*OdK0;O$lWMyoDuVQjxZewUVbZ<IsZ)9a`0<d*(WMOn=WM5-wVQ"
    "y|^Y;%*TUte={VRCd|U$0_vVQyn+I&^P3VP|D-bf|4*b8}&5Wpj?UY+-I^XL4b1XkTG<bZB37b7gX0X=I?Mb#rBMUuk5ZtYLF=X>)X8ZggL1WT2>"
    "La$#_2Uuk5Zt8#U2Utx4~Wo>YD0kLdhZf9q5VQ^?)c4cyNX>V?#F)prbVQyz<a$#_2UvO+;ZlJDgVQyz<a$#_2UubW0bfCRsZ*^{TWpZ<0b7^j4W"
    "nW}vY;<8?b8ca9b7*gLfv9a|b8}&5Wpk1N0j6_rb#h~6rgd;+VRU7rb97~J|EF+aa%FCGbAYCDb#7m2WT2sVlci~HaCLN~W^Zz9q-<|*aFUa+Vsc"
    "?_V`w^bZ#rRTWo~q&Zgp&I!~m42ZDn(FVP|D?r)_g*aA9L>lEeX#0nG={l7*pm1fq0v*&s47GBzzRF)c7LR4_0)FfckWFfK4KFfcGMD=;uRFfg!V"
    "Xkl({Wo%z|WpZ<AZ*Fsksb61nbYXIIUta>KZDn(FVP|D?1FvFoVQyn+I&^P3VP|D-bOWzqa$#;`XgYLnI&^PuY;y#zUte%?WoKn<Uvyz}YjXjrUt"
    "e-%b9HTHUta;OUtei%bY*gKb#QcFUjeOlWpZ<AZ*Fs6b7f_2hN)j)X>M?JbYEY9tzTbhZggdGa&>TYUtfc%Ute={VRCd|UjnFYWpi_3XJvB(uVQj"
    "xZewUVbZ<IgXJu}51F2tMb97;HbYEYAsb61nbYXIIUta;GVP|D-bb+s8a$#;`XgYLnI$>vJZgc{rbZ>8LbAhj7a$#;`XgYLnI&^PuY;yvoZEs{{Y"
    "=N(0a$#;`XgYLnI&E)cWo!blb#P>1bY)~;V`yP+Ze?t9lc`@{b97;HbYEYuVsc?_V`w^bZ#rRTWo~q+ZDn(FVP|D?gQjzDb#h~6q-<|*aHMl|WpD"
    "wfaA9&~Zgg{jpr8"
)
